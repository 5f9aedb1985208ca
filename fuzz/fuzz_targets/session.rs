//! Random operations on a session of a tiny model: none panics, and one that fails leaves no trace.
#![no_main]

#[path = "../../tests/common/gguf_builder.rs"]
mod gguf_builder;
#[path = "common/input.rs"]
#[allow(dead_code)]
mod input;
#[path = "common/operations.rs"]
#[allow(dead_code)]
mod operations;
#[path = "../../tests/hostile/seeds.rs"]
#[allow(dead_code)]
mod seeds;

use input::Input;
use libfuzzer_sys::fuzz_target;
use locutor::exec::{CancelFlag, Serial};
use locutor::model::Model;
use locutor::sample::Sampler;
use operations::{World, limits, operate};
use std::sync::OnceLock;

fn models() -> &'static [Model<'static>] {
    static MODELS: OnceLock<Vec<Model<'static>>> = OnceLock::new();
    MODELS.get_or_init(|| {
        seeds::all().into_iter().map(|seed| Model::from_slice(seed.file.leak()).unwrap()).collect()
    })
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let model = &models()[input.below(models().len())];
    let limits = limits(&mut input, model.spec().hard_context().is_some());
    let cancel = CancelFlag::new();
    let Ok(mut session) = model.session_on(limits, &Serial) else { return };
    session.set_cancel(Some(&cancel));
    let sampler = Sampler::greedy().temperature(0.8).unwrap().repeat_penalty(1.2).unwrap();
    let mut world = World { ids: vec![session.selected()], states: Vec::new(), sampler };
    for _ in 0..60 {
        if input.is_empty() {
            break;
        }
        operate(&mut session, &cancel, &mut world, &mut input);
    }
    // Everything can be given back.
    for id in world.ids {
        let _ = session.close(id);
    }
    let selected = session.selected();
    session.close(selected).unwrap();
    if session.sequences() == 1 {
        let (free, all) = session.pages();
        assert_eq!(free, all, "pages were lost");
    }
});

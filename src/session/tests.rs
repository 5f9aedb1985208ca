//! How the work of planning grows, counted in steps: see `crate::steps`.

use super::Limits;
use crate::model::Model;
use crate::steps::tests::counted;

#[test]
fn planning_takes_steps_for_sequences_and_for_nothing_else() {
    let model = Model::from_slice(include_bytes!("../../tests/golden/llama-head.gguf")).unwrap();
    let steps = |limits: Limits| {
        let (plan, steps) = counted(|| limits.plan(&model));
        (plan.unwrap().bytes, steps)
    };
    let (bytes, least) = steps(Limits::new().context(64));
    assert!(least > 10, "nothing was counted");
    for context in [1 << 10, 1 << 14, 1 << 18] {
        let (more, same) = steps(Limits::new().context(context).batch(64));
        assert!(more > bytes && same == least, "{context} positions: {same} steps, not {least}");
    }
    let each = steps(Limits::new().context(64).sequences(2)).1 - least;
    for sequences in [4, 32, 256] {
        let (_, taken) = steps(Limits::new().context(64).sequences(sequences));
        let most = least + each * sequences as u64;
        assert!(taken <= most, "{sequences} sequences: {taken} steps, at most {most}");
    }
}

//! The header and this crate say the same: structures, statuses, constants, functions.

use crate::handle::Sized32;
use crate::{budget, failure, generate, model, sampler, session, status};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn header() -> String {
    fs::read_to_string(root().join("include/locutor.h")).unwrap()
}

/// A C file of assertions, compiled for this machine.
fn assert_in_c(name: &str, assertions: &str) {
    let file = env::temp_dir().join(format!("{name}-{}.c", std::process::id()));
    fs::write(&file, format!("#include <stddef.h>\n#include \"locutor.h\"\n{assertions}")).unwrap();
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-fsyntax-only", "-I"]).arg(root().join("include")).arg(&file);
    let output = command.output().unwrap();
    fs::remove_file(&file).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn structures_have_the_layout_of_the_header() {
    let mut text = String::new();
    let mut compare = |name: &str, size: usize, members: &[(&str, usize)]| {
        writeln!(text, "_Static_assert(sizeof({name}) == {size}, \"{name}\");").unwrap();
        for (member, offset) in members {
            writeln!(text, "_Static_assert(offsetof({name}, {member}) == {offset}, \"{name}.{member}\");")
                .unwrap();
        }
    };
    macro_rules! compare {
        ($($name:literal: $type:path,)*) => {
            $(compare($name, size_of::<$type>(), <$type>::MEMBERS);)*
        };
    }
    compare! {
        "locutor_error": failure::ErrorInfo,
        "locutor_model_params": model::ModelParams,
        "locutor_model_info": model::ModelInfo,
        "locutor_session_params": session::SessionParams,
        "locutor_session_plan": session::SessionPlan,
        "locutor_sampler_params": sampler::SamplerParams,
        "locutor_budget": budget::BudgetParams,
        "locutor_event": generate::Event,
    }
    compare("locutor_bias", size_of::<engine::sample::Bias>(), &[("token", 0), ("bias", 4)]);
    // The two objects are opaque.
    let structures = header().matches("\ntypedef struct locutor_").count() - 2;
    assert_eq!(text.matches("_Static_assert(sizeof").count(), structures);
    assert_in_c("locutor-layout", &text);
}

#[test]
fn numbers_are_those_of_the_header() {
    let mut text = String::new();
    for (name, number) in status::ALL {
        let name = if *name == "OK" { "OK".to_owned() } else { format!("ERR_{name}") };
        writeln!(text, "_Static_assert(LOCUTOR_{name} == {number}, \"{name}\");").unwrap();
    }
    assert_eq!(header().matches("#define LOCUTOR_ERR_").count() + 1, status::ALL.len());
    let numbers = [
        ("LOCUTOR_ALIGN", engine::mem::ALIGN as i64),
        ("LOCUTOR_NO_TOKEN", model::NO_TOKEN.into()),
        ("LOCUTOR_MODEL_MAP", model::MAP.into()),
        ("LOCUTOR_MODEL_FD", model::FD.into()),
        ("LOCUTOR_MODEL_HEADER", model::HEADER.into()),
        ("LOCUTOR_MODEL_HAS_TOKENIZER", model::HAS_TOKENIZER.into()),
        ("LOCUTOR_MODEL_ADDS_BOS", model::ADDS_BOS.into()),
        ("LOCUTOR_MODEL_IS_MAPPED", model::IS_MAPPED.into()),
        ("LOCUTOR_KV_F16", session::KV_F16.into()),
        ("LOCUTOR_KV_F32", session::KV_F32.into()),
        ("LOCUTOR_KV_Q8_0", session::KV_Q8_0.into()),
        ("LOCUTOR_KV_I16", session::KV_I16.into()),
        ("LOCUTOR_POLICY_STOP", session::STOP.into()),
        ("LOCUTOR_POLICY_SHIFT", session::SHIFT.into()),
        ("LOCUTOR_POLICY_SLIDE", session::SLIDE.into()),
        ("LOCUTOR_SAVE_SEQUENCE", crate::state::SEQUENCE.into()),
        ("LOCUTOR_SAVE_SESSION", crate::state::SESSION.into()),
        ("LOCUTOR_PRECISION_MIXED", session::MIXED.into()),
        ("LOCUTOR_PRECISION_8", session::BITS_8.into()),
        ("LOCUTOR_PRECISION_16", session::BITS_16.into()),
        ("LOCUTOR_TEXT_MARKUP", crate::text::MARKUP.into()),
        ("LOCUTOR_MAX_STOPS", generate::MAX_STOPS as i64),
        ("LOCUTOR_EVENT_PENDING", generate::PENDING.into()),
        ("LOCUTOR_EVENT_PIECE", generate::PIECE.into()),
        ("LOCUTOR_EVENT_DONE", generate::DONE.into()),
        ("LOCUTOR_EVENT_TOKEN", generate::TOKEN.into()),
        ("LOCUTOR_FINISH_NONE", 0),
        ("LOCUTOR_FINISH_END", generate::END.into()),
        ("LOCUTOR_FINISH_STOP", generate::STOP.into()),
        ("LOCUTOR_FINISH_MAX_TOKENS", generate::MAX_TOKENS.into()),
        ("LOCUTOR_ABI", status::ABI.into()),
    ];
    for (name, number) in numbers {
        writeln!(text, "_Static_assert({name} == {number}, \"{name}\");").unwrap();
    }
    // Every number of the header is in one of the two lists; the guard and the version are none.
    let defines = header().lines().filter(|line| line.starts_with("#define LOCUTOR_")).count();
    assert_eq!(defines - 2, status::ALL.len() + numbers.len());
    let version = format!("#define LOCUTOR_VERSION \"{}\"\n", env!("CARGO_PKG_VERSION"));
    assert!(header().contains(&version), "the header's version is not {version}");
    assert_in_c("locutor-numbers", &text);
}

/// The functions that the header declares are those that are exported.
#[test]
fn functions_are_those_of_the_header() {
    let header = header();
    let code = header.split_once("#ifndef LOCUTOR_H").unwrap().1;
    let mut declared = BTreeSet::new();
    for (at, _) in code.match_indices("locutor_") {
        let name: String = code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let line = code[..at].rsplit('\n').next().unwrap();
        if code[at + name.len()..].starts_with('(') && line.starts_with(|c: char| c.is_ascii_lowercase()) {
            declared.insert(name);
        }
    }
    let mut exported = BTreeSet::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn locutor_"));
        exported.extend(names.filter_map(|rest| Some(format!("locutor_{}", rest.split_once('(')?.0))));
    }
    assert_eq!(declared, exported);
    assert!(declared.len() > 30);
}

/// A whole life by way of the exported functions, on the plain kernels: small enough for Miri.
#[test]
fn from_bytes_to_tokens() {
    use crate::generate::{Event, locutor_event_init, locutor_session_step_token};
    use crate::handle::{Handle, In, Out};
    use crate::model::{ModelParams, locutor_model_create, locutor_model_destroy, locutor_model_params_init};
    use crate::session::*;

    let file: &[u8] = include_bytes!("../../tests/golden/llama-head.gguf");
    let (mut model, mut session) = ([Handle::null()], [Handle::null()]);
    let mut mp = [ModelParams::DEFAULT];
    assert_eq!(locutor_model_params_init(Out::to(&mut mp), size_of::<ModelParams>()), 0);
    (mp[0].data, mp[0].data_len) = (In::to(file), file.len() as u64);
    assert_eq!(locutor_model_create(In::to(&mp), Out::to(&mut model), Out::null()), 0);
    let mut sp = [SessionParams::DEFAULT];
    (sp[0].context, sp[0].batch, sp[0].isa) = (8, 2, In::to(c"scalar".to_bytes_with_nul()).cast());
    assert_eq!(locutor_session_create(model[0], In::to(&sp), Out::to(&mut session), Out::null()), 0);
    let fork = session[0];
    let mut plan = [SessionPlan::DEFAULT];
    assert_eq!(locutor_session_get_plan(model[0], In::to(&sp), Out::to(&mut plan), Out::null()), 0);
    assert_eq!(
        locutor_session_init(model[0], In::to(&sp), Out::null(), 0, Out::to(&mut session), Out::null()),
        -100
    );
    let mut memory = engine::mem::aligned::Block::zeroed(plan[0].bytes as usize).unwrap();
    let (start, len) = (Out::to(memory.bytes_mut()), plan[0].bytes as usize);
    let status = locutor_session_init(model[0], In::to(&sp), start, len, Out::to(&mut session), Out::null());
    assert_eq!(status, 0);
    locutor_model_destroy(model[0]);
    let mut said = [const { Vec::new() }; 2];
    for (session, said) in [fork, session[0]].into_iter().zip(&mut said) {
        assert_eq!(locutor_session_feed_tokens(session, In::to(&[1, 2, 3]), 3), 0);
        let mut event = [Event::DEFAULT];
        assert_eq!(locutor_event_init(Out::to(&mut event), size_of::<Event>()), 0);
        for _ in 0..3 {
            assert_eq!(locutor_session_step_token(session, In::null(), Out::to(&mut event)), 0);
            said.push(event[0].token);
        }
        locutor_session_destroy(session);
    }
    assert_eq!(said[0], said[1]);
}

/// A file with a chat template: its text is where the library says, as long as the model lives.
#[test]
fn a_chat_template_is_lent_to_c() {
    use crate::handle::{Handle, In, Out};
    use crate::model::*;

    const TEMPLATE: &str = "{{ messages[0].text }";
    let file: &[u8] = include_bytes!("../../tests/golden/llama-head.gguf");
    // One more pair in front of the others, of two times the alignment.
    let mut pair = Vec::new();
    let key = "tokenizer.chat_template";
    pair.extend((key.len() as u64).to_le_bytes());
    pair.extend(key.as_bytes());
    pair.extend(8u32.to_le_bytes());
    pair.extend((TEMPLATE.len() as u64).to_le_bytes());
    pair.extend(TEMPLATE.as_bytes());
    assert_eq!(pair.len(), 64);
    let (head, rest) = file.split_at(24);
    let mut changed = [head, &pair, rest].concat();
    changed[16] += 1;
    for (file, template) in [(file, None), (&changed, Some(TEMPLATE))] {
        let (mut model, mut params, mut info) =
            ([Handle::null()], [ModelParams::DEFAULT], [ModelInfo::DEFAULT]);
        (params[0].data, params[0].data_len) = (In::to(file), file.len() as u64);
        assert_eq!(locutor_model_create(In::to(&params), Out::to(&mut model), Out::null()), 0);
        assert_eq!(locutor_model_get_info(model[0], Out::to(&mut info)), 0);
        let len = info[0].chat_template_len as usize;
        assert_eq!(info[0].chat_template.is_null(), template.is_none());
        assert_eq!(info[0].chat_template.slice(len).unwrap(), template.unwrap_or_default().as_bytes());
        locutor_model_destroy(model[0]);
    }
}

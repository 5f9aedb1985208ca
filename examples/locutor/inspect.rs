//! `inspect`: what a file holds, and the memory that it needs.

use crate::Failure;
use crate::limits::{KEEP, PolicyName, RunOptions};
use crate::options::ModelOptions;
use clap::Args;
use locutor::model::Model;
use locutor::model::spec::{ModelSpec, Position, Rope, Window};
use locutor::session::ContextPolicy;
use locutor::tensor::DType;
use serde_json::{Map, Value, json};
use std::io::Write;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    run: RunOptions,
    /// Sequences of the session.
    #[arg(long, value_name = "N", default_value_t = 1)]
    sequences: usize,
    /// List every tensor: name, type, shape (values of a row first), offset and bytes in the file.
    #[arg(long)]
    tensors: bool,
    /// Look at every weight, and fail if one is infinite or not a number.
    #[arg(long)]
    verify: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// A section of the report: its name, and what is known in the order of showing.
struct Section(&'static str, Vec<(&'static str, Value)>);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let model = arguments.model.open()?;
    if arguments.verify {
        model.verify()?;
    }
    let sections = [
        file(&model, arguments)?,
        hyper_parameters(model.spec()),
        tokenizer(&model),
        tensor_types(&model),
        plan(&model, arguments)?,
    ];
    let tensors = arguments.tensors.then(|| tensors(&model));
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match arguments.json {
        true => print_json(sections, tensors, &mut out)?,
        false => print_table(&sections, tensors.unwrap_or_default(), &mut out)?,
    }
    Ok(out.flush()?)
}

fn file(model: &Model<'_>, arguments: &Arguments) -> Result<Section, Failure> {
    let file = model.file();
    let elements: u64 = file.tensors().iter().map(|entry| entry.elements()).sum();
    let mut rows = vec![
        ("file", json!(crate::open::name(arguments.model.model.as_deref()))),
        ("file_bytes", json!(file.file_len())),
        ("gguf_version", json!(file.version())),
        ("metadata_keys", json!(file.entries().count())),
        ("tensors", json!(file.tensors().len())),
        ("parameters", json!(elements)),
        ("architecture", json!(model.spec().family.name())),
    ];
    for (key, shown) in [("general.name", "name"), ("general.license", "license")] {
        if let Ok(Some(text)) = file.str(key) {
            rows.push((shown, json!(text)));
        }
    }
    Ok(Section("model", rows))
}

fn hyper_parameters(spec: &ModelSpec) -> Section {
    let mut rows = vec![
        ("vocabulary_tokens", json!(spec.vocab)),
        ("context_tokens", json!(spec.context)),
        ("embedding_width", json!(spec.embd)),
        ("layers", json!(spec.layers)),
        ("heads", json!(spec.heads)),
        ("kv_heads", json!(spec.kv_heads)),
        ("key_width", json!(spec.dim_k)),
        ("value_width", json!(spec.dim_v)),
        ("mlp_width", json!(spec.ff)),
        ("mlp", json!(lower(&spec.mlp))),
        ("activation", json!(lower(&spec.activation))),
        ("norm", json!(lower(&spec.norm))),
        ("norm_place", json!(lower(&spec.norm_place))),
        ("norm_epsilon", float(spec.norm_eps)),
        ("query_key_norm", json!(lower(&spec.qk_norm))),
        ("attention_scale", float(spec.attention_scale)),
        ("embedding_scale", float(spec.embed_scale)),
        ("tied_embedding", json!(spec.tied)),
    ];
    for (name, cap) in [("attention_softcap", spec.attention_softcap), ("logit_softcap", spec.logit_softcap)]
    {
        if cap != 0.0 {
            rows.push((name, float(cap)));
        }
    }
    match spec.position {
        Position::Rope { full, windowed } => {
            rows.push(("position", json!(rope(&full))));
            if windowed != full {
                rows.push(("window_position", json!(rope(&windowed))));
            }
        }
        other => rows.push(("position", json!(lower(&other)))),
    }
    if let Window::Pattern { size, period } = spec.window {
        rows.push(("window_tokens", json!(size)));
        rows.push(("window_period_layers", json!(period)));
    }
    Section("hyper_parameters", rows)
}

/// The shortest number that stands for this one.
fn float(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or_else(|_| value.into()))
}

/// A variant's name in lower case.
fn lower(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn rope(rope: &Rope) -> String {
    let Rope { pairs, dims, base, scaling } = rope;
    format!("rotation of {dims} values, {} pairs, base {base}, scaling {}", lower(pairs), lower(scaling))
}

fn tokenizer(model: &Model<'_>) -> Section {
    let Some(tokenizer) = model.tokenizer() else { return Section("tokenizer", Vec::new()) };
    let mut rows = Vec::new();
    for (key, shown) in [("tokenizer.ggml.model", "kind"), ("tokenizer.ggml.pre", "splitting")] {
        if let Ok(Some(text)) = model.file().str(key) {
            rows.push((shown, json!(text)));
        }
    }
    rows.push(("tokens", json!(tokenizer.vocab_len())));
    let ids = tokenizer.ids();
    for (name, id) in [
        ("bos_id", ids.bos),
        ("eos_id", ids.eos),
        ("eot_id", ids.eot),
        ("eom_id", ids.eom),
        ("unk_id", ids.unk),
        ("pad_id", ids.pad),
    ] {
        if let Some(id) = id {
            rows.push((name, json!(id)));
        }
    }
    let ends: Vec<u32> = (0..tokenizer.vocab_len() as u32).filter(|id| tokenizer.is_end(*id)).collect();
    rows.push(("end_ids", json!(ends)));
    rows.push(("add_bos", json!(tokenizer.add_bos())));
    rows.push(("add_eos", json!(tokenizer.add_eos())));
    rows.push(("add_blank", json!(tokenizer.adds_blank())));
    rows.push(("longest_token_bytes", json!(tokenizer.longest_token())));
    rows.push(("chat_template", json!(tokenizer.chat_template().is_some())));
    Section("tokenizer", rows)
}

fn tensor_types(model: &Model<'_>) -> Section {
    let rows = DType::ALL.into_iter().filter_map(|dtype| {
        let of_type = || model.file().tensors().iter().filter(move |entry| entry.dtype() == dtype);
        let bytes: u64 = of_type().map(|entry| entry.bytes).sum();
        let row = json!({"tensors": of_type().count(), "bytes": bytes});
        (of_type().count() > 0).then_some((dtype.name(), row))
    });
    Section("tensor_types", rows.collect())
}

/// The memory of the model and of one session with the options given.
fn plan(model: &Model<'_>, arguments: &Arguments) -> Result<Section, Failure> {
    let options = &arguments.run.limits;
    let limits = arguments.run.limits()?.sequences(arguments.sequences);
    let (policy, keep) = match options.policy(PolicyName::Stop, KEEP)? {
        ContextPolicy::Stop => ("stop", None),
        ContextPolicy::Shift { keep } => ("shift", Some(keep)),
        ContextPolicy::Slide { sinks } => ("slide", Some(sinks)),
    };
    let threads = arguments.run.threads.max(1);
    let decode_threads = if options.decode_threads == 0 { threads } else { options.decode_threads };
    let session = limits.plan(model)?;
    let file = model.file().file_len();
    let tables = model.memory_bytes() as u64;
    let mut rows = vec![("context_tokens", json!(session.context)), ("policy", json!(policy))];
    rows.extend(keep.map(|keep| ("keep_tokens", json!(keep))));
    rows.extend([
        ("sequences", json!(arguments.sequences)),
        ("batch_tokens", json!(session.batch)),
        ("threads", json!(threads)),
        ("decode_threads", json!(decode_threads)),
        ("keys", json!(lower(&options.kv.0))),
        ("values", json!(lower(&options.kv.1))),
        ("kernels", json!(crate::open::kernels()?.name)),
        ("file_bytes", json!(file)),
        ("model_bytes", json!(tables)),
        ("session_bytes", json!(session.bytes)),
        ("kv_bytes", json!(session.kv_bytes)),
        ("logits_bytes", json!(session.logits_bytes)),
        ("scratch_bytes", json!(session.scratch_bytes)),
        ("total_bytes", json!(file + tables + session.bytes as u64)),
    ]);
    Ok(Section("plan", rows))
}

fn tensors(model: &Model<'_>) -> Vec<Value> {
    let file = model.file();
    let mut entries: Vec<_> = file.tensors().iter().collect();
    entries.sort_by_key(|entry| entry.offset);
    let describe = |entry: &&locutor::format::TensorEntry| {
        json!({
            "name": file.tensor_name(entry),
            "type": entry.dtype().name(),
            "shape": entry.dims[..entry.n_dims as usize],
            "offset": entry.offset,
            "bytes": entry.bytes,
        })
    };
    entries.iter().map(describe).collect()
}

fn print_json(
    sections: [Section; 5],
    tensors: Option<Vec<Value>>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut report = Map::new();
    for Section(name, rows) in sections {
        let rows: Map<String, Value> = rows.into_iter().map(|(key, value)| (key.into(), value)).collect();
        report.insert(name.into(), rows.into());
    }
    if let Some(tensors) = tensors {
        report.insert("tensors".into(), tensors.into());
    }
    Ok(writeln!(out, "{}", Value::from(report))?)
}

fn print_table(sections: &[Section; 5], tensors: Vec<Value>, out: &mut impl Write) -> Result<(), Failure> {
    for Section(name, rows) in sections {
        writeln!(out, "{}", name.replace('_', " "))?;
        for (key, value) in rows {
            let label = if value.is_object() { key.to_string() } else { key.replace('_', " ") };
            writeln!(out, "  {label:<22} {}", shown(key, value))?;
        }
        if rows.is_empty() {
            writeln!(out, "  none")?;
        }
    }
    if !tensors.is_empty() {
        writeln!(out, "tensors")?;
    }
    for tensor in tensors {
        let text = |key: &str| tensor[key].as_str().unwrap_or_default().to_string();
        let shape: Vec<String> =
            tensor["shape"].as_array().into_iter().flatten().map(Value::to_string).collect();
        let (name, dtype, shape) = (text("name"), text("type"), shape.join(" x "));
        writeln!(
            out,
            "  {name:<34} {dtype:<5} {shape:<18} at {:>11} {:>11} bytes",
            tensor["offset"], tensor["bytes"]
        )?;
    }
    Ok(())
}

/// A value for people: bytes also in a unit that can be read.
fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::Number(number) if key.ends_with("_bytes") => {
            let bytes = number.as_u64().unwrap_or_default();
            match bytes {
                0..=9_999 => bytes.to_string(),
                _ => format!("{bytes} ({})", indicatif::BinaryBytes(bytes)),
            }
        }
        Value::Object(row) => format!("{} tensors, {} bytes", row["tensors"], row["bytes"]),
        Value::Array(items) => items.iter().map(Value::to_string).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

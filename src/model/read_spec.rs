//! From metadata to a checked descriptor.

use super::ModelError;
use super::error::Name;
use super::spec::{Family, ModelSpec, Position, Rope, RopeScaling};
use crate::format::{Gguf, Value};
use crate::kernels::RopePairs;

/// A file's hyper-parameters under the prefix of its family.
pub(super) struct Keys<'g, 'a> {
    file: &'g Gguf<'a>,
    pub(super) family: Family,
    /// Rows of the embedding.
    pub(super) vocab: usize,
    /// Whether the file has no head of its own.
    pub(super) tied: bool,
    /// Whether the file has divisors of the rotation's frequencies.
    pub(super) has_rope_factors: bool,
}

/// Reads the descriptor of a file and checks that it makes sense and that it can be computed.
pub fn read_spec(file: &Gguf<'_>) -> Result<ModelSpec, ModelError> {
    // Files of one part may say so; another number is of a file whose tensors stand in several.
    if file.u32("split.count")?.is_some_and(|parts| parts != 1) {
        return Err(ModelError::Unsupported { what: "a model in several files" });
    }
    let name = file.str("general.architecture")?;
    let name = name.ok_or(ModelError::MissingKey { arch: "general", key: "architecture" })?;
    let family = Family::ALL.into_iter().find(|family| family.name() == name);
    let offset = file.value_offset("general.architecture").unwrap_or(0);
    let family = family.ok_or(ModelError::Architecture { name: Name::new(name.as_bytes()), offset })?;
    let embedding = file.tensor("token_embd.weight");
    let embedding = embedding.ok_or(ModelError::MissingTensor { name: Name::new(b"token_embd.weight") })?;
    let vocab = usize::try_from(embedding.dims[1]).map_err(|_| crate::num::Overflow)?;
    let keys = Keys {
        file,
        family,
        vocab,
        tied: file.tensor("output.weight").is_none(),
        has_rope_factors: file.tensor("rope_freqs.weight").is_some(),
    };
    let spec = family.spec(&keys)?;
    check(&keys, &spec)?;
    spec.check()?;
    Ok(spec)
}

/// Rules that concern more than one value.
fn check(keys: &Keys<'_, '_>, spec: &ModelSpec) -> Result<(), ModelError> {
    if spec.vocab == 0 || spec.vocab > i32::MAX as usize {
        return Err(keys.bad("vocab_size", spec.vocab as f64, "1 to 2^31 - 1 rows of token_embd.weight"));
    }
    if let Position::Rope { full, windowed } = spec.position {
        for rope in [full, windowed] {
            if rope.dims == 0 || rope.dims % 2 != 0 || rope.dims > spec.dim_k {
                return Err(keys.bad(
                    "rope.dimension_count",
                    rope.dims as f64,
                    "even, at most the head's width",
                ));
            }
        }
    }
    // Everything that is computed from these stays far below the range of a 32-bit index.
    let widest = spec.heads.max(1) * spec.dim_k.max(spec.dim_v);
    if widest > 1 << 22 {
        return Err(keys.bad("attention.head_count", spec.heads as f64, "at most 2^22 values in all heads"));
    }
    Ok(())
}

impl Keys<'_, '_> {
    /// An error about a key's value.
    pub(super) fn bad(&self, key: &'static str, value: f64, rule: &'static str) -> ModelError {
        let arch = self.family.name();
        let offset = self.file.value_offset((arch, key));
        ModelError::HyperParameter { arch, key, value, rule, offset }
    }

    /// A length of 1 to `most` that must be there.
    pub(super) fn length(&self, key: &'static str, most: usize) -> Result<usize, ModelError> {
        let value = self.file.u32((self.family.name(), key))?;
        let value = value.ok_or(ModelError::MissingKey { arch: self.family.name(), key })?;
        self.within(key, value, most)
    }

    /// A length of 1 to `most`, or `default` when the key is missing.
    pub(super) fn length_or(
        &self,
        key: &'static str,
        default: usize,
        most: usize,
    ) -> Result<usize, ModelError> {
        match self.file.u32((self.family.name(), key))? {
            Some(value) => self.within(key, value, most),
            None => Ok(default),
        }
    }

    fn within(&self, key: &'static str, value: u32, most: usize) -> Result<usize, ModelError> {
        let length = usize::try_from(value).unwrap_or(usize::MAX);
        if length == 0 || length > most {
            return Err(self.bad(key, f64::from(value), "above 0 and below the limit of this key"));
        }
        Ok(length)
    }

    /// Checks that the layers have no experts. Files without them leave the keys out, or say 0.
    pub(super) fn no_experts(&self) -> Result<(), ModelError> {
        let arch = self.family.name();
        let count = self.file.u32((arch, "expert_count"))?.unwrap_or(0);
        if count > 1 << 16 {
            return Err(self.bad("expert_count", f64::from(count), "0 for none, and at most 2^16"));
        }
        if let Some(used) = self.file.u32((arch, "expert_used_count"))?
            && (used > count || used == 0 && count > 0)
        {
            let rule = "1 to expert_count, or 0 where there are no experts";
            return Err(self.bad("expert_used_count", f64::from(used), rule));
        }
        if count > 0 { Err(ModelError::Unsupported { what: "mixture of experts" }) } else { Ok(()) }
    }

    /// A finite number above 0, or `default`.
    pub(super) fn positive_or(&self, key: &'static str, default: f32) -> Result<f32, ModelError> {
        let value = self.file.f32((self.family.name(), key))?.unwrap_or(default);
        if !value.is_finite() || value <= 0.0 {
            return Err(self.bad(key, f64::from(value), "finite and above 0"));
        }
        Ok(value)
    }

    /// The epsilon of the norms.
    pub(super) fn epsilon(&self, key: &'static str) -> Result<f32, ModelError> {
        if self.file.f32((self.family.name(), key))?.is_none() {
            return Err(ModelError::MissingKey { arch: self.family.name(), key });
        }
        self.positive_or(key, 0.0)
    }

    /// A soft cap; 0 for none.
    pub(super) fn cap(&self, key: &'static str) -> Result<f32, ModelError> {
        match self.file.f32((self.family.name(), key))? {
            None | Some(0.0) => Ok(0.0),
            Some(_) => self.positive_or(key, 0.0),
        }
    }

    /// The rotation of a family with these defaults.
    pub(super) fn rope(&self, pairs: RopePairs, dims: usize, base: f32) -> Result<Rope, ModelError> {
        let arch = self.family.name();
        let scaling = match self.file.str((arch, "rope.scaling.type"))? {
            None | Some("none") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear(self.positive_or("rope.scaling.factor", 1.0)?),
            Some(_) => {
                return Err(ModelError::Unsupported { what: "rope.scaling.type other than none and linear" });
            }
        };
        let dims = self.length_or("rope.dimension_count", dims, 1024)?;
        Ok(Rope { pairs, dims, base: self.positive_or("rope.freq_base", base)?, scaling })
    }

    /// The window pattern: layers of a period, the last of which sees everything. Files give the number, or a flag a
    /// layer.
    pub(super) fn window_period(&self, layers: usize, default: usize) -> Result<usize, ModelError> {
        let key = "attention.sliding_window_pattern";
        let Some(Value::Array(flags)) = self.file.get((self.family.name(), key)) else {
            return self.length_or(key, default, 512);
        };
        let windowed = |layer| flags.get(layer).and_then(|flag| flag.as_bool());
        let period =
            (0..layers).find(|layer| windowed(*layer) == Some(false)).map_or(layers + 1, |full| full + 1);
        if flags.len != layers
            || (0..layers).any(|layer| windowed(layer) != Some(!(layer + 1).is_multiple_of(period)))
        {
            return Err(self.bad(
                key,
                flags.len as f64,
                "a flag a layer, false for the last layer of each period",
            ));
        }
        Ok(period)
    }
}

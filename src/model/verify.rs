//! Looking at every weight of a file, which loading does not do.

use super::{Model, ModelError, Name};
use crate::format::gguf::TensorEntry;
use crate::num::Overflow;
use crate::tensor::dequant;

/// Values looked at together: whole blocks of every type.
const STEP: usize = 256;

impl Model<'_> {
    /// Checks that every value of every tensor of the file is finite, the scales of blocks included: a model that fails
    /// gives [`NonFinite`](crate::session::Error::NonFinite) sooner or later, or text of no meaning. Reads the whole file;
    /// allocates nothing. Weights of a mapped file may change behind it.
    ///
    /// # Errors
    /// [`ModelError::NonFinite`] with the first tensor, by name, that has such a value, and the offset of the value or of
    /// its block.
    pub fn verify(&self) -> Result<(), ModelError> {
        self.file().tensors().iter().try_for_each(|entry| self.verify_tensor(entry))
    }

    fn verify_tensor(&self, entry: &TensorEntry) -> Result<(), ModelError> {
        let overflow = |_| ModelError::Overflow(Overflow);
        let start = usize::try_from(entry.offset).map_err(overflow)?;
        let len = usize::try_from(entry.bytes).map_err(overflow)?;
        let data = self.weights().data().sub(start, len).ok_or(ModelError::Overflow(Overflow))?;
        let dtype = entry.dtype();
        let step = dtype.row_bytes(STEP).unwrap_or(len).max(1);
        let mut values = [0.0; STEP];
        for (number, offset) in (0..len).step_by(step).enumerate() {
            let Some(blocks) = data.sub(offset, step.min(len - offset)) else { break };
            let count = dequant::dequantize_row(dtype, blocks, &mut values);
            let bad = values.iter().take(count).position(|value| !value.is_finite());
            if let Some(bad) = bad {
                let name = Name::new(self.file().tensor_name(entry).as_bytes());
                let block = bad / dtype.block().0 * dtype.block().1;
                let offset = entry.offset.saturating_add((offset + block) as u64);
                return Err(ModelError::NonFinite { name, index: number * STEP + bad, offset });
            }
        }
        Ok(())
    }
}

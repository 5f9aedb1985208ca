//! Where numbers stop being finite: for messages of builds with debug assertions.

use super::forward::Pass;
use super::phase::Phase;
use super::spec::NormPlace;

impl core::fmt::Display for Phase {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(Phase::NAMES.get(self.kind()).copied().unwrap_or_default())?;
        self.layer().map_or(Ok(()), |layer| write!(f, " of layer {layer}"))
    }
}

impl Pass<'_, '_> {
    /// The columns in whose results of `phase`, which has run, a number is not finite. Looks at what passes from layer to
    /// layer, and at logits: what stands in between shows there. Of logits, minus infinity is a number.
    pub fn broken(&self, phase: Phase) -> impl Iterator<Item = usize> + '_ {
        let spec = self.forward.spec;
        let around = spec.norm_place == NormPlace::Around;
        let first = self.first_column(phase);
        let (array, width, skipped) = match phase {
            Phase::AttnOut(_) | Phase::FfnOut(_) if around => (&*self.memory.branch, spec.embd, first),
            Phase::Embed | Phase::AttnOut(_) | Phase::FfnOut(_) => (&*self.memory.x, spec.embd, first),
            Phase::AttnNorm(_) | Phase::FfnNorm(_) if around => (&*self.memory.x, spec.embd, first),
            Phase::Head => (&*self.memory.logits, spec.vocab, 0),
            _ => (&[][..], 1, 0),
        };
        let columns = self.batch.ids.len().saturating_sub(first);
        let is_head = phase == Phase::Head;
        let bad = move |value: &f32| !(value.is_finite() || is_head && *value == f32::NEG_INFINITY);
        let rows = array.chunks_exact(width.max(1)).skip(skipped).take(columns).enumerate();
        rows.filter(move |(_, row)| row.iter().any(bad)).map(move |(row, _)| first + row)
    }
}

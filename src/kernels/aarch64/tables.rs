//! What the CPU can do, and the tables. They share everything but the products of bytes in the quantised layers.

use super::{linear, vector};
use crate::cpu::Features;
use crate::kernels::Kernels;

/// The tables of this build with the features that they need, the best one last.
pub(in crate::kernels) const TABLES: &[(&Kernels, Features)] =
    &[(&NEON, NEON_NEEDS), (&DOTPROD, DOTPROD_NEEDS), (&I8MM, I8MM_NEEDS)];

/// What [`NEON`] needs.
const NEON_NEEDS: Features = Features { neon: true, ..Features::NONE };

/// NEON as it was from the first CPU on.
const NEON: Kernels = vector::kernels("neon", linear::neon::LINEAR, linear::scratch);

/// What [`DOTPROD`] needs.
const DOTPROD_NEEDS: Features = Features { dotprod: true, ..NEON_NEEDS };

/// With dot products of four bytes (`sdot`).
const DOTPROD: Kernels = vector::kernels("dotprod", linear::dotprod::LINEAR, linear::scratch);

/// What [`I8MM`] needs.
const I8MM_NEEDS: Features = Features { i8mm: true, ..DOTPROD_NEEDS };

/// With products of matrices of bytes (`smmla`) as well.
const I8MM: Kernels = vector::kernels("i8mm", linear::i8mm::LINEAR, linear::scratch);

/// Asks the operating system, as programs may not ask the CPU. Without one, what the build was told is all there is.
pub(in crate::kernels) fn features() -> Features {
    if cfg!(miri) {
        return Features::NONE;
    }
    #[cfg(feature = "std")]
    let (dotprod, i8mm) = {
        use std::arch::is_aarch64_feature_detected as has;
        (has!("dotprod"), has!("i8mm"))
    };
    #[cfg(not(feature = "std"))]
    let (dotprod, i8mm) = (cfg!(target_feature = "dotprod"), cfg!(target_feature = "i8mm"));
    Features { neon: true, dotprod, i8mm, ..Features::NONE }
}

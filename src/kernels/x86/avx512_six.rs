//! Products of two groups of rows with six columns, in assembly: a sum is added to again only after eleven others, so none
//! waits for the one before it, and sums, accumulators and what they need fill the 32 registers. A compiler brings all
//! weights into registers first, and then has none left for sums.

use super::avx512_linear::{Avx512, SIGNIFICANDS};
use crate::kernels::rows::{BOTH, Codes, Line, Weights};
use crate::tensor::{Act8, SCALE_BITS, Sums};
use core::arch::asm;
use core::arch::x86_64::__m512;
use core::mem::offset_of;

/// Where the numbers are that sums start with, in a block of activations: in front of `q`, or there if with nothing.
const fn start(codes: Codes, second: bool) -> usize {
    let less = offset_of!(Act8, sums) + offset_of!(Sums, less);
    match codes {
        Codes::Four | Codes::Five => offset_of!(Act8, q),
        Codes::FourMinus8 => less,
        Codes::FiveMinus16 => less + 4,
        // Stored as `w + 128`.
        Codes::Signed8 => less + 8,
        Codes::SixMinus32 => offset_of!(Act8, sums) + offset_of!(Sums, less32) + if second { 4 } else { 0 },
    }
}

/// See [`add_both`](crate::kernels::rows::Lanes::add_both); the sums as they were if a line is too short.
#[inline(always)]
pub(super) fn add_both<T: Weights>(
    _: Avx512,
    mut sums: [[__m512; BOTH]; 2],
    lines: [Line<'_, Avx512, T>; 2],
    x: &[&Act8; BOTH],
) -> [[__m512; BOTH]; 2] {
    let [a, b] = lines.map(|line| line.floats());
    if a.len() < Line::<Avx512, T>::LEN || b.len() < Line::<Avx512, T>::LEN {
        return sums;
    }
    let w = [a.as_ptr(), b.as_ptr()];
    // SAFETY: both lines are as long as those of `T`, and a value of `Avx512` stands for the instructions.
    unsafe {
        sums = add_half::<T, false>(w, x, sums);
        if T::CODES.halves() {
            sums = add_half::<T, true>(w, x, sums);
        }
    }
    sums
}

/// What the sums of column `$c`, registers `$a` and `$b`, start with.
#[rustfmt::skip]
macro_rules! start {
    ($c:literal, $a:literal, $b:literal) => {
        concat!(
            ".if {start} < {q}\n",
            "vpbroadcastd ", $a, ", [{x", $c, "} + {start}]\n",
            ".else\n",
            "vpxord ", $a, ", ", $a, ", ", $a, "\n",
            ".endif\n",
            "vmovdqa64 ", $b, ", ", $a,
        )
    };
}

/// Adds the products of quad `g`, whose weights are in registers, with those of column `$c`.
#[rustfmt::skip]
macro_rules! products {
    ($c:literal, $a:literal, $b:literal) => {
        concat!(
            "vpbroadcastd zmm31, [{x", $c, "} + 4 * \\g + {q}]\n",
            "vpdpbusd ", $a, ", zmm29, zmm31\n",
            "vpdpbusd ", $b, ", zmm30, zmm31",
        )
    };
}

/// Adds the sums of column `$c` times the scales to what was added up so far; see
/// [`times`](crate::kernels::rows::Lanes::times).
#[rustfmt::skip]
macro_rules! scaled {
    ($c:literal, $a:literal, $b:literal) => {
        concat!(
            "mov {t:e}, [{x", $c, "}]\n",
            "vpbroadcastd zmm31, [{x", $c, "}]\n",
            "shr {t:e}, {shift}\n",
            "and {t:e}, {mask}\n",
            "vpaddd zmm29, zmm31, [{w0} + {t} + {scales}]\n",
            "vpaddd zmm30, zmm31, [{w1} + {t} + {scales}]\n",
            "vcvtdq2ps ", $a, ", ", $a, "\n",
            "vcvtdq2ps ", $b, ", ", $b, "\n",
            "vmulps ", $a, ", ", $a, ", zmm29\n",
            "vmulps ", $b, ", ", $b, ", zmm30\n",
            "vaddps {a", $c, "}, {a", $c, "}, ", $a, "\n",
            "vaddps {b", $c, "}, {b", $c, "}, ", $b, "\n",
            ".if {min}\n",
            "vbroadcastss zmm31, [{x", $c, "} + {scaled}]\n",
            "vmulps zmm29, zmm31, [{w0} + {min}]\n",
            "vmulps zmm30, zmm31, [{w1} + {min}]\n",
            "vaddps {a", $c, "}, {a", $c, "}, zmm29\n",
            "vaddps {b", $c, "}, {b", $c, "}, zmm30\n",
            ".endif",
        )
    };
}

/// Adds to the sums of two groups of rows the products of the weights at two addresses: of a whole part, or of its first or
/// second half where these have scales of their own.
///
/// # Safety
/// As many floats as a line of `T` has may be read at both addresses, and the CPU has AVX-512 F and VNNI.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add_half<T: Weights, const SECOND: bool>(
    w: [*const f32; 2],
    x: &[&Act8; BOTH],
    [mut a, mut b]: [[__m512; BOTH]; 2],
) -> [[__m512; BOTH]; 2] {
    // SAFETY: reads what a line of `T` holds, which the caller answers for, and the columns' blocks.
    unsafe {
        asm!(
            start!("0", "zmm17", "zmm23"),
            start!("1", "zmm18", "zmm24"),
            start!("2", "zmm19", "zmm25"),
            start!("3", "zmm20", "zmm26"),
            start!("4", "zmm21", "zmm27"),
            start!("5", "zmm22", "zmm28"),
            ".irp g,0,1,2,3,4,5,6,7",
            ".if (\\g >= {from}) & (\\g < {to})",
            "vmovdqu64 zmm29, [{w0} + 64 * \\g]",
            "vmovdqu64 zmm30, [{w1} + 64 * \\g]",
            products!("0", "zmm17", "zmm23"),
            products!("1", "zmm18", "zmm24"),
            products!("2", "zmm19", "zmm25"),
            products!("3", "zmm20", "zmm26"),
            products!("4", "zmm21", "zmm27"),
            products!("5", "zmm22", "zmm28"),
            ".endif",
            ".endr",
            scaled!("0", "zmm17", "zmm23"),
            scaled!("1", "zmm18", "zmm24"),
            scaled!("2", "zmm19", "zmm25"),
            scaled!("3", "zmm20", "zmm26"),
            scaled!("4", "zmm21", "zmm27"),
            scaled!("5", "zmm22", "zmm28"),
            from = const if SECOND { 4 } else { 0 },
            to = const if T::CODES.halves() && !SECOND { 4 } else { 8 },
            start = const start(T::CODES, SECOND),
            q = const offset_of!(Act8, q),
            scales = const size_of::<f32>() * Line::<Avx512, T>::SCALES[SECOND as usize],
            shift = const 24 - SCALE_BITS - size_of::<[f32; 16]>().ilog2(),
            mask = const (SIGNIFICANDS - 1) * size_of::<[f32; 16]>(),
            min = const if T::MIN { size_of::<f32>() * Line::<Avx512, T>::MIN } else { 0 },
            scaled = const offset_of!(Act8, sums) + offset_of!(Sums, scaled),
            t = out(reg) _,
            w0 = in(reg) w[0],
            w1 = in(reg) w[1],
            x0 = in(reg) x[0],
            x1 = in(reg) x[1],
            x2 = in(reg) x[2],
            x3 = in(reg) x[3],
            x4 = in(reg) x[4],
            x5 = in(reg) x[5],
            a0 = inout(zmm_reg) a[0],
            a1 = inout(zmm_reg) a[1],
            a2 = inout(zmm_reg) a[2],
            a3 = inout(zmm_reg) a[3],
            a4 = inout(zmm_reg) a[4],
            a5 = inout(zmm_reg) a[5],
            b0 = inout(zmm_reg) b[0],
            b1 = inout(zmm_reg) b[1],
            b2 = inout(zmm_reg) b[2],
            b3 = inout(zmm_reg) b[3],
            b4 = inout(zmm_reg) b[4],
            b5 = inout(zmm_reg) b[5],
            out("zmm17") _,
            out("zmm18") _,
            out("zmm19") _,
            out("zmm20") _,
            out("zmm21") _,
            out("zmm22") _,
            out("zmm23") _,
            out("zmm24") _,
            out("zmm25") _,
            out("zmm26") _,
            out("zmm27") _,
            out("zmm28") _,
            out("zmm29") _,
            out("zmm30") _,
            out("zmm31") _,
            options(pure, readonly, nostack)
        );
    }
    [a, b]
}

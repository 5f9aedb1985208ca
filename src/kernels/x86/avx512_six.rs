//! Products of two groups of rows with six columns, in assembly: a sum is added to again only after eleven others, so none
//! waits for the one before it, and sums, accumulators and what they need fill the 32 registers. A compiler brings all
//! weights into registers first, and then has none left for sums.
#![allow(clippy::needless_range_loop, reason = "arrays of registers are clearer with indices")]

use super::avx2_products::starts;
use super::avx512_linear::Avx512;
use crate::kernels::rows::{BOTH, Codes, Lanes};
use crate::tensor::Act8;
use core::arch::asm;
use core::arch::x86_64::*;

/// See [`Lanes::dot_both`]; sums of nothing if the weights are too few.
#[inline(always)]
pub(super) fn dot_both(
    isa: Avx512,
    codes: Codes,
    w: [&[f32]; 2],
    x: &[&Act8; BOTH],
) -> [[[__m512i; BOTH]; 2]; 2] {
    let mut halves = [[isa.splat(0); BOTH]; 2];
    for c in 0..BOTH {
        let [first, second] = starts(codes, &x[c].sums);
        (halves[0][c], halves[1][c]) = (isa.splat(first), isa.splat(second));
    }
    let [first, second] = halves;
    let (Some(a), Some(b)) = (w[0].first_chunk::<128>(), w[1].first_chunk::<128>()) else {
        return [halves, halves];
    };
    let w = [a.as_ptr(), b.as_ptr()];
    // SAFETY: `w` has 512 bytes at either address; a value of `Avx512` stands for the instructions.
    let [a, b] = unsafe { four_quads::<0>(w, x, [first, first]) };
    let then = if codes.halves() { [second, second] } else { [a, b] };
    // SAFETY: as before.
    let [c, d] = unsafe { four_quads::<4>(w, x, then) };
    if codes.halves() { [[a, c], [b, d]] } else { [[c, second], [d, second]] }
}

/// Adds the products of quads `FROM` to `FROM + 3` of the weights at two addresses with those of the columns to `a` and `b`.
///
/// # Safety
/// 512 bytes may be read at both addresses, and the CPU has AVX-512 F and VNNI. `FROM` is 0 or 4.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn four_quads<const FROM: usize>(
    w: [*const f32; 2],
    x: &[&Act8; BOTH],
    [mut a, mut b]: [[__m512i; BOTH]; 2],
) -> [[__m512i; BOTH]; 2] {
    // SAFETY: reads 256 of the 512 bytes of weights, which the caller answers for, and 16 of the 32 bytes of each column.
    unsafe {
        asm!(
            ".irp g,0,1,2,3",
            "vmovdqu64 zmm29, [{w0} + 64 * (\\g + {from})]",
            "vmovdqu64 zmm30, [{w1} + 64 * (\\g + {from})]",
            "vpbroadcastd zmm31, [{x0} + 4 * (\\g + {from})]",
            "vpdpbusd {a0}, zmm29, zmm31",
            "vpdpbusd {b0}, zmm30, zmm31",
            "vpbroadcastd zmm31, [{x1} + 4 * (\\g + {from})]",
            "vpdpbusd {a1}, zmm29, zmm31",
            "vpdpbusd {b1}, zmm30, zmm31",
            "vpbroadcastd zmm31, [{x2} + 4 * (\\g + {from})]",
            "vpdpbusd {a2}, zmm29, zmm31",
            "vpdpbusd {b2}, zmm30, zmm31",
            "vpbroadcastd zmm31, [{x3} + 4 * (\\g + {from})]",
            "vpdpbusd {a3}, zmm29, zmm31",
            "vpdpbusd {b3}, zmm30, zmm31",
            "vpbroadcastd zmm31, [{x4} + 4 * (\\g + {from})]",
            "vpdpbusd {a4}, zmm29, zmm31",
            "vpdpbusd {b4}, zmm30, zmm31",
            "vpbroadcastd zmm31, [{x5} + 4 * (\\g + {from})]",
            "vpdpbusd {a5}, zmm29, zmm31",
            "vpdpbusd {b5}, zmm30, zmm31",
            ".endr",
            from = const FROM,
            w0 = in(reg) w[0],
            w1 = in(reg) w[1],
            x0 = in(reg) x[0].q.as_ptr(),
            x1 = in(reg) x[1].q.as_ptr(),
            x2 = in(reg) x[2].q.as_ptr(),
            x3 = in(reg) x[3].q.as_ptr(),
            x4 = in(reg) x[4].q.as_ptr(),
            x5 = in(reg) x[5].q.as_ptr(),
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
            out("zmm29") _,
            out("zmm30") _,
            out("zmm31") _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    [a, b]
}

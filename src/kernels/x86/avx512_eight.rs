//! Products of eight rows of float weights with three columns, in assembly: the 24 sums, and what they need, fill the 32
//! registers. A compiler moves sums to and fro between them, and some to memory.

use super::avx512_linear::Avx512;
use crate::kernels::floats::{FloatWeights, LANES, Panel};
use crate::tensor::DType;
use core::arch::asm;
use core::arch::x86_64::{__m512, _mm512_loadu_si512, _mm512_setzero_ps};

/// Rows.
const ROWS: usize = 8;

/// Columns.
const COLUMNS: usize = 3;

/// The sums of all runs, if it is for [`ROWS`] rows and [`COLUMNS`] columns; see [`Wide::sums`](crate::kernels::floats::Wide::sums).
#[inline(always)]
pub(super) fn sums<T: FloatWeights, const R: usize, const C: usize>(
    _: Avx512,
    panel: &Panel<'_, T, R>,
    x: &[&[[f32; LANES]]; C],
    ahead: Option<*const u8>,
) -> Option<[[__m512; R]; C]> {
    if R != ROWS || C != COLUMNS {
        return None;
    }
    let (mut runs, mut columns) = (panel.runs(), [core::ptr::null(); COLUMNS]);
    for (column, x) in columns.iter_mut().zip(x) {
        (*column, runs) = (x.as_ptr().cast(), runs.min(x.len()));
    }
    // SAFETY: the panel answers for `runs` runs in each of its rows, the columns have as many, and a value of `Avx512`
    // stands for the instructions.
    let all = unsafe { all_runs::<T>(panel.start(), panel.stride(), columns, runs, ahead) };
    let mut sums = [[all[0][0]; R]; C];
    for c in 0..C {
        for r in 0..R {
            sums[c][r] = all[c % COLUMNS][r % ROWS];
        }
    }
    Some(sums)
}

/// Adds the products of the weights of row `$r` with the three columns to their sums.
#[rustfmt::skip]
macro_rules! row {
    ($at:literal, $w:literal, $first:literal, $second:literal, $third:literal) => {
        concat!(
            ".if {kind} == 0\n",
            "vmovups ", $w, ", [", $at, "]\n",
            ".elseif {kind} == 1\n",
            "vcvtph2ps ", $w, ", [", $at, "]\n",
            ".else\n",
            "vmovdqu16 ymm29, [", $at, "]\n",
            "vpermw ", $w, "{{{upper}}}{{z}}, zmm30, zmm29\n",
            ".endif\n",
            ".if {kind} == 1\n",
            "vfmadd231ps ", $first, ", ", $w, ", zmm24\n",
            "vfmadd231ps ", $second, ", ", $w, ", zmm25\n",
            "vfmadd231ps ", $third, ", ", $w, ", zmm26\n",
            ".else\n",
            "vmulps zmm29, ", $w, ", zmm24\n",
            "vmulps zmm31, ", $w, ", zmm25\n",
            "vmulps ", $w, ", ", $w, ", zmm26\n",
            "vaddps ", $first, ", ", $first, ", zmm29\n",
            "vaddps ", $second, ", ", $second, ", zmm31\n",
            "vaddps ", $third, ", ", $third, ", ", $w, "\n",
            ".endif",
        )
    };
}

/// See [`sums`].
///
/// # Safety
/// So many runs may be read in eight rows from `w` on, `stride` bytes apart, and in each column, and the CPU has
/// AVX-512 (F, BW, VL).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn all_runs<T: FloatWeights>(
    w: *const u8,
    stride: usize,
    x: [*const f32; COLUMNS],
    runs: usize,
    ahead: Option<*const u8>,
) -> [[__m512; ROWS]; COLUMNS] {
    let mut sums = [[_mm512_setzero_ps(); ROWS]; COLUMNS];
    // Every 16 bits twice, of which the mask leaves the upper ones: weights of BF16 to the upper halves of lanes.
    let mut twice = [0u16; 32];
    for (i, place) in twice.iter_mut().enumerate() {
        *place = i as u16 / 2;
    }
    // SAFETY: reads `twice`, and what the caller answers for.
    unsafe {
        let twice = _mm512_loadu_si512(twice.as_ptr().cast());
        asm!(
            "test {runs}, {runs}",
            "jz 3f",
            "2:",
            "vmovups zmm24, [{x0}]",
            "vmovups zmm25, [{x1}]",
            "vmovups zmm26, [{x2}]",
            ".irp line,0,1,2,3,4,5,6,7",
            ".if \\line < 2 * {size}",
            "prefetcht1 [{ahead} + 64 * \\line]",
            ".endif",
            ".endr",
            row!("{p0}", "zmm27", "zmm0", "zmm8", "zmm16"),
            row!("{p0} + {stride}", "zmm28", "zmm1", "zmm9", "zmm17"),
            row!("{p0} + 2 * {stride}", "zmm27", "zmm2", "zmm10", "zmm18"),
            row!("{p3}", "zmm28", "zmm3", "zmm11", "zmm19"),
            row!("{p3} + {stride}", "zmm27", "zmm4", "zmm12", "zmm20"),
            row!("{p3} + 2 * {stride}", "zmm28", "zmm5", "zmm13", "zmm21"),
            row!("{p6}", "zmm27", "zmm6", "zmm14", "zmm22"),
            row!("{p6} + {stride}", "zmm28", "zmm7", "zmm15", "zmm23"),
            "add {x0}, 64",
            "add {x1}, 64",
            "add {x2}, 64",
            "add {p0}, 16 * {size}",
            "add {p3}, 16 * {size}",
            "add {p6}, 16 * {size}",
            "add {ahead}, {step}",
            "dec {runs}",
            "jnz 2b",
            "3:",
            kind = const match T::DTYPE { DType::F32 => 0, DType::F16 => 1, _ => 2 },
            size = const size_of::<T::Bits>(),
            upper = in(kreg) 0xaaaa_aaaa_u32,
            stride = in(reg) stride,
            step = in(reg) if ahead.is_some() { ROWS * 16 * size_of::<T::Bits>() } else { 0 },
            runs = inout(reg) runs => _,
            ahead = inout(reg) ahead.unwrap_or(w) => _,
            p0 = inout(reg) w => _,
            p3 = inout(reg) w.wrapping_add(3 * stride) => _,
            p6 = inout(reg) w.wrapping_add(6 * stride) => _,
            x0 = inout(reg) x[0] => _,
            x1 = inout(reg) x[1] => _,
            x2 = inout(reg) x[2] => _,
            inout("zmm0") sums[0][0],
            inout("zmm1") sums[0][1],
            inout("zmm2") sums[0][2],
            inout("zmm3") sums[0][3],
            inout("zmm4") sums[0][4],
            inout("zmm5") sums[0][5],
            inout("zmm6") sums[0][6],
            inout("zmm7") sums[0][7],
            inout("zmm8") sums[1][0],
            inout("zmm9") sums[1][1],
            inout("zmm10") sums[1][2],
            inout("zmm11") sums[1][3],
            inout("zmm12") sums[1][4],
            inout("zmm13") sums[1][5],
            inout("zmm14") sums[1][6],
            inout("zmm15") sums[1][7],
            inout("zmm16") sums[2][0],
            inout("zmm17") sums[2][1],
            inout("zmm18") sums[2][2],
            inout("zmm19") sums[2][3],
            inout("zmm20") sums[2][4],
            inout("zmm21") sums[2][5],
            inout("zmm22") sums[2][6],
            inout("zmm23") sums[2][7],
            out("zmm24") _,
            out("zmm25") _,
            out("zmm26") _,
            out("zmm27") _,
            out("zmm28") _,
            out("zmm29") _,
            in("zmm30") twice,
            out("zmm31") _,
            options(pure, readonly, nostack)
        );
    }
    sums
}

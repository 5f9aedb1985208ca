//! Products of eight rows of float weights with three columns, in assembly: the 24 sums, and what they need, fill the 32
//! registers. A compiler moves sums to and fro between them, and some to memory.

use super::avx512_linear::Avx512;
use crate::kernels::floats::{AHEAD, FloatWeights, LANES, Panel, Tile};
use crate::tensor::DType;
use bytemuck::Zeroable;
use core::arch::asm;
use core::arch::x86_64::_mm512_loadu_si512;
use core::array;
use core::mem::offset_of;

/// Rows.
const ROWS: usize = 8;

/// Columns.
const COLUMNS: usize = 3;

/// What lies behind the whole runs, filled up with zeros to one more, and the results.
#[repr(C, align(64))]
struct Ends<B> {
    weights: [[B; LANES]; ROWS],
    values: [[f32; LANES]; COLUMNS],
    sums: [[f32; ROWS]; COLUMNS],
}

/// See [`Wide::columns`](crate::kernels::floats::Wide::columns).
#[inline(always)]
pub(super) fn tile<T: FloatWeights>(isa: Avx512, tile: &mut Tile<'_, '_, '_, Avx512, T>) -> bool {
    let cols = tile.w.cols();
    let Some(last) = tile.w.rows().checked_sub(ROWS) else { return false };
    let mut ends = Ends {
        weights: [[Zeroable::zeroed(); LANES]; ROWS],
        values: [[0.0; LANES]; COLUMNS],
        sums: [[0.0; ROWS]; COLUMNS],
    };
    for row in (0..tile.rows).step_by(ROWS) {
        // The last rows are taken together with some before them.
        let wanted = tile.out.first() + row;
        let first = wanted.min(last);
        let Some(panel) = Panel::<T, ROWS>::new(tile.w, first) else { return false };
        if !cols.is_multiple_of(LANES) {
            panel.ends(&mut ends.weights, |bits| bits);
        }
        for line in (0..tile.lines).step_by(COLUMNS) {
            let columns = array::from_fn(|c| (line + c).min(tile.lines - 1) * cols);
            products(isa, &panel, (tile.x, columns), line == 0, &mut ends);
            for (c, sums) in ends.sums.iter().enumerate().take(tile.lines - line) {
                let out = tile.out.line(line + c).get_mut(row..tile.rows).unwrap_or_default();
                // Nearly always; of a length that the compiler knows.
                match out.first_chunk_mut::<ROWS>() {
                    Some(out) if wanted == first => *out = *sums,
                    _ => write(out, sums.get(wanted - first..).unwrap_or_default()),
                }
            }
        }
    }
    true
}

/// As many results as there are places.
#[inline(never)]
fn write(out: &mut [f32], sums: &[f32]) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = *sum;
    }
}

/// The dot products of the rows with the columns that begin at these values of `x`; nothing if one is not inside. At the
/// first use of the rows those [`AHEAD`] are asked for.
#[inline(always)]
fn products<T: FloatWeights>(
    _: Avx512,
    panel: &Panel<'_, T, ROWS>,
    (x, columns): (&[f32], [usize; COLUMNS]),
    first_use: bool,
    ends: &mut Ends<T::Bits>,
) {
    let (cols, runs) = (panel.stride / size_of::<T::Bits>(), panel.runs());
    if columns.iter().any(|column| *column > x.len() || cols > x.len() - column) {
        return;
    }
    if cols > runs * LANES {
        for (column, end) in columns.iter().zip(&mut ends.values) {
            write(end, x.get(column + runs * LANES..column + cols).unwrap_or_default());
        }
    }
    let columns = columns.map(|column| x.as_ptr().wrapping_add(column));
    let runs = (runs, cols > runs * LANES);
    // SAFETY: panel and columns have `runs` runs, of which all are inside, and a value of `Avx512` stands for the
    // instructions.
    unsafe { all_runs::<T>(panel.start(), panel.stride, columns, runs, first_use, ends) }
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

/// Lane `l` of `$a` and `$b` takes lane `l + 8`: `$a` becomes a half of both.
#[rustfmt::skip]
macro_rules! halves {
    ($a:literal, $b:literal) => {
        concat!(
            "vblendmps zmm24{{{halves}}}, ", $a, ", ", $b, "\n",
            "vshuff64x2 ", $a, ", ", $a, ", ", $b, ", 0x4e\n",
            "vaddps ", $a, ", ", $a, ", zmm24\n",
        )
    };
}

/// Lane `l` takes lane `l + 4`: `$a` becomes quarters of both by turns.
#[rustfmt::skip]
macro_rules! quarters {
    ($a:literal, $b:literal) => {
        concat!(
            "vblendmps zmm24{{{quarters}}}, ", $a, ", ", $b, "\n",
            "vblendmps ", $a, "{{{others}}}, ", $a, ", ", $b, "\n",
            "vshuff32x4 ", $a, ", ", $a, ", ", $a, ", 0xb1\n",
            "vaddps ", $a, ", ", $a, ", zmm24\n",
        )
    };
}

/// Adds up the sums of column `$column`, which are in eight registers, across their lanes: they become one, with one shuffle a
/// step and lanes chosen by masks otherwise, which any unit does.
#[rustfmt::skip]
macro_rules! across {
    ($column:literal, $r0:literal, $r1:literal, $r2:literal, $r3:literal, $r4:literal, $r5:literal, $r6:literal, $r7:literal, $half:literal) => {
        concat!(
            halves!($r0, $r4),
            halves!($r2, $r6),
            halves!($r1, $r5),
            halves!($r3, $r7),
            quarters!($r0, $r2),
            quarters!($r1, $r3),
            "vblendmps zmm24{{{pairs}}}, ", $r0, ", ", $r1, "\n",
            "vshufps ", $r0, ", ", $r0, ", ", $r1, ", 0x4e\n",
            "vaddps ", $r0, ", ", $r0, ", zmm24\n",
            "vpermilps zmm24, ", $r0, ", 0xb1\n",
            "vaddps ", $r0, ", ", $r0, ", zmm24\n",
            "vpmovqd ", $half, ", ", $r0, "\n",
            "vmovups [{ends} + {sums} + 32 * ", $column, "], ", $half, "\n",
        )
    };
}

/// See [`products`].
///
/// # Safety
/// So many runs may be read in eight rows from `w` on, `stride` bytes apart, and in each column; `ends` holds what is behind
/// them, if something is; the CPU has AVX-512 (F, BW, VL).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn all_runs<T: FloatWeights>(
    w: *const u8,
    stride: usize,
    x: [*const f32; COLUMNS],
    (runs, rest): (usize, bool),
    first_use: bool,
    ends: &mut Ends<T::Bits>,
) {
    let [step, ahead] = if first_use { [ROWS * LANES * size_of::<T::Bits>(), AHEAD] } else { [0; 2] };
    // Every 16 bits twice, of which the mask leaves the upper ones: weights of BF16 to the upper halves of lanes.
    let mut twice = [0u16; 32];
    for (i, place) in twice.iter_mut().enumerate() {
        *place = i as u16 / 2;
    }
    // SAFETY: reads `twice` and what the caller answers for, reads and writes `ends`.
    unsafe {
        let twice = _mm512_loadu_si512(twice.as_ptr().cast());
        asm!(
            ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23",
            "vpxord zmm\\r, zmm\\r, zmm\\r",
            ".endr",
            "test {now}, {now}",
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
            "dec {now}",
            "jnz 2b",
            "3:",
            // Once more for what is behind the whole runs.
            "test {rest}, {rest}",
            "jz 4f",
            "mov {now}, {rest}",
            "xor {rest}, {rest}",
            "mov {stride}, 16 * {size}",
            "lea {p0}, [{ends} + {weights}]",
            "lea {p3}, [{ends} + {weights} + 3 * 16 * {size}]",
            "lea {p6}, [{ends} + {weights} + 6 * 16 * {size}]",
            "lea {x0}, [{ends} + {values}]",
            "lea {x1}, [{ends} + {values} + 64]",
            "lea {x2}, [{ends} + {values} + 128]",
            "jmp 2b",
            "4:",
            across!("0", "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "ymm0"),
            across!("1", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12", "zmm13", "zmm14", "zmm15", "ymm8"),
            across!("2", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "ymm16"),
            kind = const match T::DTYPE { DType::F32 => 0, DType::F16 => 1, _ => 2 },
            size = const size_of::<T::Bits>(),
            weights = const offset_of!(Ends<T::Bits>, weights),
            values = const offset_of!(Ends<T::Bits>, values),
            sums = const offset_of!(Ends<T::Bits>, sums),
            upper = in(kreg) 0xaaaa_aaaa_u32,
            halves = in(kreg) 0xff00_u32,
            quarters = in(kreg) 0xf0f0_u32,
            others = in(kreg) 0x0f0f_u32,
            pairs = in(kreg) 0xcccc_u32,
            ends = in(reg) core::ptr::from_mut(ends),
            stride = inout(reg) stride => _,
            step = in(reg) step,
            now = inout(reg) runs => _,
            rest = inout(reg) usize::from(rest) => _,
            ahead = inout(reg) w.wrapping_add(ahead) => _,
            p0 = inout(reg) w => _,
            p3 = inout(reg) w.wrapping_add(3 * stride) => _,
            p6 = inout(reg) w.wrapping_add(6 * stride) => _,
            x0 = inout(reg) x[0] => _,
            x1 = inout(reg) x[1] => _,
            x2 = inout(reg) x[2] => _,
            out("zmm0") _,
            out("zmm1") _,
            out("zmm2") _,
            out("zmm3") _,
            out("zmm4") _,
            out("zmm5") _,
            out("zmm6") _,
            out("zmm7") _,
            out("zmm8") _,
            out("zmm9") _,
            out("zmm10") _,
            out("zmm11") _,
            out("zmm12") _,
            out("zmm13") _,
            out("zmm14") _,
            out("zmm15") _,
            out("zmm16") _,
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
            in("zmm30") twice,
            out("zmm31") _,
            options(nostack)
        );
    }
}

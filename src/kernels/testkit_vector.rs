//! The battery of the vector kernels: every table against the scalar one, bit by bit, and the scalar one against plain
//! `f64` code with derived bounds.

extern crate std;

use super::testkit_attention::{Cache, RANGES, attend};
use super::*;
use crate::mem::split::TileMut;
use crate::tensor::STANDS_OUT;
use std::vec;
use std::vec::Vec;

/// xorshift64*: test data that never change.
#[derive(Clone)]
pub(super) struct Rng(pub u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// Uniform in -1..1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    pub(super) fn units(&mut self, n: usize, size: f32) -> Vec<f32> {
        (0..n).map(|_| self.unit() * size).collect()
    }
}

/// Inputs of one length: ordinary, of any exponent, subnormal, ties and runs of zeros, and non-finite ones.
fn inputs(rng: &mut Rng, n: usize) -> Vec<Vec<f32>> {
    let any = |rng: &mut Rng| {
        let x = f32::from_bits(rng.next() as u32);
        if x.is_finite() { x } else { 1.5 }
    };
    let odd =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MAX, f32::MIN_POSITIVE, 1e-44, 88.8, -104.0];
    let mut sets = vec![
        rng.units(n, 1.0),
        rng.units(n, 20.0),
        rng.units(n, 1e-40),
        rng.units(n, 2e38),
        vec![0.0; n],
        vec![-3.5; n],
        (0..n).map(|_| any(rng)).collect(),
        (0..n).map(|i| if i % 7 == 3 { odd[i % 3 + 3] } else { 0.25 * (i % 19) as f32 - 2.0 }).collect(),
        (0..n).map(|_| rng.below(255) as f32 / 2.0 - 63.5).collect(),
    ];
    for one in odd {
        let mut x = rng.units(n, 3.0);
        if n > 0 {
            x[rng.below(n)] = one;
        }
        sets.push(x);
    }
    sets
}

const LENGTHS: [usize; 14] = [0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 100, 257, 576];

/// The same bits; a NaN equals any NaN.
#[track_caller]
pub(super) fn same(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(
            g.to_bits() == e.to_bits() || g.is_nan() && e.is_nan(),
            "{what}[{i}]: {g:e} instead of {e:e}"
        );
    }
}

/// Runs `f` with both tables on a copy of `x` and compares.
#[track_caller]
fn both(what: &str, table: &Kernels, x: &[f32], f: impl Fn(&Kernels, &mut [f32])) {
    let (mut got, mut expected) = (x.to_vec(), x.to_vec());
    f(table, &mut got);
    f(&SCALAR, &mut expected);
    same(what, &got, &expected);
}

pub(super) const ACTIVATIONS: [Activation; 4] =
    [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu];

fn elementwise_equals_scalar(table: &Kernels) {
    let mut rng = Rng(1);
    for n in LENGTHS {
        for x in inputs(&mut rng, n) {
            let y = rng.units(n + 3, 2.0);
            for f in ACTIVATIONS {
                both("activate", table, &x, |t, x| (t.activate)(f, x));
                both("activate_mul", table, &x, |t, x| (t.activate_mul)(f, x, &y));
            }
            both("add", table, &x, |t, x| (t.add)(x, &y));
            both("add_tile", table, &x, |t, x| {
                let mut y = y.clone();
                (t.add_tile)(&mut TileMut::whole(x, 3, 2), &mut TileMut::whole(&mut y, 4, 3));
            });
            both("scale", table, &x, |t, x| (t.scale)(x, 0.3));
            both("softcap", table, &x, |t, x| (t.softcap)(x, 30.0));
            both("shorten", table, &x, |t, x| (t.shorten)(x));
            for pairs in [RopePairs::Interleaved, RopePairs::Halves] {
                for half in [n / 2, n / 4, n] {
                    both("rope", table, &x, |t, x| (t.rope)(pairs, x, &y[..half], &y[2..half + 2]));
                }
            }
        }
    }
}

fn norms_equal_scalar(table: &Kernels) {
    let mut rng = Rng(2);
    for n in LENGTHS {
        for x in inputs(&mut rng, n) {
            let (w, b) = (rng.units(n, 2.0), rng.units(n, 1.0));
            let zeros = vec![0.0; n + 1];
            for (w, b) in [(&w[..], &b[..]), (&[], &[]), (&w, &[]), (&w[..n / 2], &b)] {
                both("rms_norm", table, &zeros, |t, out| (t.rms_norm)(&x, w, 1e-5, out));
                both("layer_norm", table, &zeros, |t, out| (t.layer_norm)(&x, w, b, 1e-5, out));
            }
            both("log_sum_exp", table, &[0.0], |t, out| out[0] = (t.log_sum_exp)(&x));
        }
    }
}

/// The integers of a block.
fn whole(block: &Act8) -> ([i32; 3], [i32; 2], u32, [i8; 32]) {
    (block.sums.less, block.sums.less32, block.rest, block.q)
}

/// A column rounded, with places for `places` rests from number `first + 1` on.
fn quantised(
    table: &Kernels,
    x: &[f32],
    precision: Precision,
    (first, places): (usize, usize),
) -> [Vec<Act8>; 2] {
    let untouched = Act8::new(7.0, [7; 32]);
    let (mut blocks, mut rests) = (vec![untouched; x.len() / 32 + 1], vec![untouched; places]);
    (table.quantize)(x, precision, &mut blocks, &mut rests, first);
    [blocks, rests]
}

const PRECISIONS: [Precision; 3] = [Precision::Bits8, Precision::Mixed, Precision::Bits16];

fn quantising_equals_scalar(table: &Kernels) {
    let mut rng = Rng(3);
    for n in LENGTHS {
        for x in inputs(&mut rng, n) {
            for precision in PRECISIONS {
                for places in [precision.rests(n / 32), n / 32, 1] {
                    let [got, expected] =
                        [table, &SCALAR].map(|table| quantised(table, &x, precision, (n, places)).concat());
                    for (g, e) in got.iter().zip(&expected) {
                        same("quantize", &[g.scale, g.sums.scaled], &[e.scale, e.sums.scaled]);
                        assert_eq!(whole(g), whole(e));
                        let made = Act8 { rest: g.rest, ..Act8::new(g.scale, g.q) };
                        assert_eq!(whole(g), whole(&made));
                        same("quantize", &[g.sums.scaled], &[made.sums.scaled]);
                    }
                }
            }
        }
    }
}

/// Everything at once, for one table.
pub(super) fn battery(table: &Kernels) {
    elementwise_equals_scalar(table);
    norms_equal_scalar(table);
    quantising_equals_scalar(table);
    super::testkit_attention::battery(table);
}

#[test]
fn scalar() {
    battery(&SCALAR);
}

/// FNV-1a of the bits of many results, any NaN counted as one.
pub(super) struct Digest(pub u64);

impl Digest {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    pub(super) fn floats(&mut self, x: &[f32]) {
        for x in x {
            let bits = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
            self.bytes(&bits.to_le_bytes());
        }
    }
}

/// The bits of every kernel as they were when this was written. They must not change: between machines, compilers and
/// versions of this library, or what hosts have recorded no longer replays.
#[test]
fn bits_are_pinned() {
    let (mut rng, mut digest) = (Rng(10), Digest(0xcbf2_9ce4_8422_2325));
    for x in inputs(&mut rng, 129) {
        let (w, b) = (rng.units(129, 2.0), rng.units(129, 1.0));
        for f in ACTIVATIONS {
            let mut x = x.clone();
            (SCALAR.activate)(f, &mut x);
            digest.floats(&x);
        }
        let mut out = vec![0.0; 129];
        (SCALAR.rms_norm)(&x, &w, 1e-5, &mut out);
        digest.floats(&out);
        (SCALAR.layer_norm)(&x, &w, &b, 1e-5, &mut out);
        digest.floats(&out);
        (SCALAR.rope)(RopePairs::Interleaved, &mut out, &w[..64], &b[..64]);
        (SCALAR.rope)(RopePairs::Halves, &mut out, &w[..64], &b[..64]);
        (SCALAR.softcap)(&mut out, 1.5);
        digest.floats(&out);
        digest.floats(&[(SCALAR.log_sum_exp)(&x)]);
        for precision in PRECISIONS {
            for block in quantised(&SCALAR, &x, precision, (0, 4)).concat() {
                digest.floats(&[block.scale]);
                digest.bytes(&block.rest.to_le_bytes());
                digest.bytes(&block.q.map(|q| q as u8));
            }
        }
    }
    let cache = Cache::new(&mut rng, &SCALAR, 700, (64, 80), KvType::F16.into());
    let q = rng.units(3 * 64, 2.0);
    for (first, end) in RANGES {
        let args = Attention { kv: cache.kv(), scale: 0.125, softcap: (end % 2) as f32 };
        digest.floats(&attend(&SCALAR, &q, &args, first..end));
    }
    assert_eq!(digest.0, 0x539e_fc18_d3a6_e161, "{:#018x}", digest.0);
}

#[track_caller]
pub(super) fn close(what: &str, got: f32, exact: f64, bound: f64) {
    assert!((got as f64 - exact).abs() <= bound, "{what}: {got:e} instead of {exact:e}, bound {bound:e}");
}

/// Half a unit in the last place, relative.
pub(super) const U: f64 = 1.0 / 16_777_216.0;

#[test]
fn norms_match_f64() {
    let mut rng = Rng(6);
    for n in [1, 7, 16, 33, 576, 2048] {
        let x = rng.units(n, 5.0);
        let (w, b) = (rng.units(n, 2.0), rng.units(n, 1.0));
        let mut out = vec![0.0; n];
        let sum = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(*x as f64)).sum::<f64>();
        // A lane adds n / 16 squares and the tree 4 more; the root halves the relative error.
        let steps = n as f64 / 16.0 + 8.0;
        let s = 1.0 / (sum(&|x| x * x) / n as f64 + 1e-5f32 as f64).sqrt();
        (SCALAR.rms_norm)(&x, &w, 1e-5, &mut out);
        for i in 0..n {
            let exact = x[i] as f64 * s * w[i] as f64;
            close("rms_norm", out[i], exact, exact.abs() * U * (steps / 2.0 + 6.0));
        }
        let mean = sum(&|x| x) / n as f64;
        let var = sum(&|x| (x - mean) * (x - mean)) / n as f64;
        let s = 1.0 / (var + 1e-5f32 as f64).sqrt();
        (SCALAR.layer_norm)(&x, &w, &b, 1e-5, &mut out);
        for i in 0..n {
            let exact = (x[i] as f64 - mean) * s * w[i] as f64 + b[i] as f64;
            // The mean is off by up to `steps` roundings of 5; then come relative errors, as above.
            let (centred, w) = (x[i] as f64 - mean, w[i].abs() as f64);
            let mean_error = 5.0 * steps * U;
            let bound =
                (mean_error * 2.0 + centred.abs() * U * (steps / 2.0 + 8.0)) * s * w + exact.abs() * U;
            close("layer_norm", out[i], exact, bound);
        }
        let logits = rng.units(n, 12.0);
        let exact = logits.iter().map(|x| (*x as f64).exp()).sum::<f64>().ln();
        close("log_sum_exp", (SCALAR.log_sum_exp)(&logits), exact, U * (steps + 4.0 + 24.0));
    }
    let lse = SCALAR.log_sum_exp;
    assert_eq!(lse(&[]), f32::NEG_INFINITY);
    assert_eq!(lse(&[f32::NEG_INFINITY; 20]), f32::NEG_INFINITY);
    assert_eq!(lse(&[1.0, f32::INFINITY]), f32::INFINITY);
    assert!(lse(&[1.0, f32::NAN]).is_nan());
    assert_eq!(lse(&[-2e38; 1]), -2e38);
}

#[test]
fn activations_match_f64() {
    let erf = |x: f64| {
        let (mut term, mut sum) = (x, x);
        for n in 1..400 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * core::f64::consts::FRAC_2_SQRT_PI
    };
    for i in -80_000..80_000 {
        let x = i as f32 * 5e-5;
        let w = x as f64;
        let inner = (2.0 / core::f64::consts::PI).sqrt() * (w + 0.044715 * w * w * w);
        let exact = [
            w * 0.5 * (1.0 + inner.tanh()),
            w * 0.5 * (1.0 + erf(w / 2f64.sqrt())),
            w / (1.0 + (-w).exp()),
            w.max(0.0),
        ];
        for (f, exact) in ACTIVATIONS.into_iter().zip(exact) {
            let mut got = [x];
            (SCALAR.activate)(f, &mut got);
            // Relative to the input: gelu multiplies it with a number that is off by some roundings of 1.
            close("activation", got[0], exact, 4.0 * U * w.abs());
        }
    }
    let mut edges = [f32::MAX, -f32::MAX, 1e20, -1e20, 0.0, -200.0];
    (SCALAR.activate)(Activation::GeluTanh, &mut edges);
    assert_eq!(edges, [f32::MAX, 0.0, 1e20, 0.0, 0.0, 0.0]);
    let mut x = [1.0, 2.0, 3.0, 4.0, 5.0];
    (SCALAR.rope)(RopePairs::Halves, &mut x, &[0.0, 1.0], &[1.0, 0.0]);
    assert_eq!(x, [-3.0, 2.0, 1.0, 4.0, 5.0]);
    let mut x = [1.0, 2.0, 3.0, 4.0, 5.0];
    (SCALAR.rope)(RopePairs::Interleaved, &mut x, &[0.0, 1.0], &[1.0, 0.0]);
    assert_eq!(x, [-2.0, 1.0, 3.0, 4.0, 5.0]);
    let mut x = [0.0, 1e9, -1e9, 15.0];
    (SCALAR.softcap)(&mut x, 30.0);
    close("softcap", x[3], 30.0 * 0.5f64.tanh(), 30.0 * 4.0 * U);
    assert_eq!(x[..3], [0.0, 30.0, -30.0]);
}

#[test]
fn quantising_follows_its_definition() {
    let mut rng = Rng(7);
    let mut sets: Vec<Vec<f32>> = inputs(&mut rng, 64);
    sets.push((0..64).map(|i| (i - 32) as f32 / 32.0 * 127.0).collect());
    sets.push((0..64).map(|i| 2f32.powi(106) / (1 + i) as f32).collect());
    sets.push((0..64).map(|i| 2f32.powi(-80) * (1 + i) as f32 / 64.0).collect());
    for x in sets {
        let [blocks, rests] = quantised(&SCALAR, &x, Precision::Bits16, (10, 2));
        let [alone, _] = quantised(&SCALAR, &x, Precision::Bits8, (10, 2));
        let mut number = 10;
        for ((x, block), alone) in x.chunks(32).zip(&blocks).zip(&alone) {
            let peak = x.iter().fold(0f32, |m, x| m.max(x.abs()));
            let finite = x.iter().all(|x| x.abs() < 2f32.powi(100));
            assert_eq!((block.q, block.scale.to_bits()), (alone.q, alone.scale.to_bits()));
            if !finite || peak < 2f32.powi(-80) {
                let rest = if finite { 0 } else { Act8::NOT_FINITE };
                assert!(if finite { block.scale == 1.0 } else { block.scale.is_nan() });
                assert_eq!((block.q, block.rest, alone.rest), ([0; 32], rest, rest));
                continue;
            }
            number += 1;
            // Four significant bits.
            let least = peak * (1.0 / 127.0);
            let step = 2f32.powi(f64::from(least).log2().floor() as i32 - 3);
            let scale = (least / step).ceil() * step;
            assert_eq!((block.scale, block.rest, alone.rest), (scale, number, 0));
            let rest = &rests[number as usize - 11];
            assert_eq!((rest.scale, rest.rest), (scale / 256.0, 0));
            for (i, x) in x.iter().enumerate() {
                assert_eq!(f32::from(block.q[i]), (x * (1.0 / scale)).round_ties_even());
                assert!(block.q[i] > -128 && rest.q[i] > -128);
                let value = |block: &Act8| f64::from(block.scale) * f64::from(block.q[i]);
                let error = (value(block) + value(rest) - f64::from(*x)).abs();
                // Half a step, or a whole one where the rest is cut at 127.
                let steps = if rest.q[i].abs() == 127 { 1.01 } else { 0.51 };
                assert!(error <= f64::from(scale) * (steps / 256.0), "{x} is off by {error:e}");
            }
            // A scale is at most an eighth larger than need be.
            assert!(block.q.iter().any(|q| q.abs() >= 112));
        }
    }
}

/// The blocks with a rest, of a column whose blocks have these peaks.
fn standing_out(peaks: &[f32], places: usize) -> Vec<usize> {
    let x: Vec<f32> = peaks.iter().flat_map(|peak| (0..32).map(move |i| peak * i as f32 / 31.0)).collect();
    let [blocks, _] = quantised(&SCALAR, &x, Precision::Mixed, (0, places));
    let with: Vec<usize> =
        (0..peaks.len()).filter(|i| !matches!(blocks[*i].rest, 0 | Act8::NOT_FINITE)).collect();
    assert!((1..).zip(&with).all(|(number, i)| blocks[*i].rest == number));
    with
}

#[test]
fn blocks_that_stand_out_are_rounded_twice() {
    let n = 6 * STANDS_OUT;
    let places = Precision::Mixed.rests(n);
    assert_eq!(places, 6);
    let mut peaks = vec![1.0f32; n];
    assert_eq!(standing_out(&peaks, places), []);
    (peaks[3], peaks[17]) = (50.0, -49.0);
    assert_eq!(standing_out(&peaks, places), [3, 17]);
    // What is no number changes nothing for itself, but there is no mean any more.
    peaks[5] = f32::NAN;
    assert_eq!(standing_out(&peaks, places), []);
    // As many as there can be, with next to nothing elsewhere; and one of them more.
    let mut peaks = vec![1e-3f32; n];
    peaks[..5].fill(1.0);
    assert_eq!(standing_out(&peaks, places), [0, 1, 2, 3, 4]);
    peaks[5] = 1.0;
    assert_eq!(standing_out(&peaks, places), []);
    // Without a place there is no rest; squares that are too large or too small count as none.
    let mut peaks = vec![1.0f32; n];
    (peaks[3], peaks[17]) = (50.0, -49.0);
    assert_eq!(standing_out(&peaks, 1), [3]);
    for factor in [1e28, 1e-26] {
        let peaks: Vec<f32> = peaks.iter().map(|peak| peak * factor).collect();
        assert_eq!(standing_out(&peaks, places), []);
    }
}

#[test]
fn lengths_that_do_not_fit_do_less() {
    let (long, mut short) = ([1.0; 40], [0.0; 3]);
    (SCALAR.rms_norm)(&long, &long[..2], 0.0, &mut short);
    assert_eq!(short, [1.0, 1.0, 0.0]);
    (SCALAR.add)(&mut short, &long);
    assert_eq!(short, [2.0, 2.0, 1.0]);
    (SCALAR.rope)(RopePairs::Halves, &mut short, &long, &long);
    assert_eq!(short, [2.0, 2.0, 1.0]);
    // A tile of two lines of two, of which there are only one and one number a line to add.
    let (mut to, mut from) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [10.0]);
    (SCALAR.add_tile)(&mut TileMut::whole(&mut to, 3, 2), &mut TileMut::whole(&mut from, 1, 1));
    assert_eq!(to, [11.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    (SCALAR.quantize)(&long, Precision::Bits16, &mut [], &mut [], usize::MAX);
}

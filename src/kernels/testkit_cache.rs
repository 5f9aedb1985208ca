//! How the types of keys and values round what they store, against their definitions, and the bits of caches with scales.

extern crate std;

use super::testkit_attention::{Cache, RANGES, attend};
use super::testkit_vector::{Digest, Rng, close, same};
use super::*;
use std::vec;
use std::vec::Vec;

/// The bits of caches with scales as they were when this was written; see `bits_are_pinned`.
#[test]
fn bits_of_scaled_caches_are_pinned() {
    let pins = [(KvType::Q8_0, 0x1a7a_05d1_5a9f_f02d), (KvType::I16, 0xa95f_3d0a_1b22_3c97)];
    for (kind, expected) in pins {
        let (mut rng, mut digest) = (Rng(11), Digest(0xcbf2_9ce4_8422_2325));
        for types in [kind.into(), KvTypes { keys: kind, values: KvType::F16 }] {
            let cache = Cache::new(&mut rng, &SCALAR, 700, (64, 80), types);
            let q = rng.units(3 * 64, 2.0);
            for (first, end) in RANGES {
                let args = Attention { kv: cache.kv(), scale: 0.125, softcap: (end % 2) as f32 };
                digest.floats(&attend(&SCALAR, &q, &args, first..end));
            }
        }
        assert_eq!(digest.0, expected, "{kind:?} {:#018x}", digest.0);
    }
}

/// Each number is the nearest step of its position, half to even, and the largest one is 8191 of them.
#[test]
fn integers_follow_their_definition() {
    let mut rng = Rng(16);
    for n in [1, 2, 31, 64, 100] {
        for size in [1.0, 300.0, 1e-3, 1e-20, 1e20] {
            let rows: Vec<_> = (0..32).map(|_| (rng.units(n, size), rng.units(n, size))).collect();
            let cache = Cache::filled(&SCALAR, 32, (n, n), KvType::I16.into(), |p| rows[p].clone());
            for (p, (k, v)) in rows.iter().enumerate() {
                let (stored_k, stored_v) = cache.stored(p);
                for (given, stored) in [(k, stored_k), (v, stored_v)] {
                    let peak = given.iter().fold(0f32, |peak, x| peak.max(x.abs()));
                    let expected: Vec<f32> = given
                        .iter()
                        .map(|x| (x * (8191.0 / peak)).round_ties_even() * (peak * (1.0 / 8191.0)))
                        .collect();
                    same("integers", &stored, &expected);
                    assert!(stored.iter().any(|x| (x.abs() / peak - 1.0).abs() < 1e-6));
                }
            }
        }
    }
    // Too little for a scale.
    let cache = Cache::filled(&SCALAR, 1, (3, 3), KvType::I16.into(), |_| (vec![1e-38; 3], vec![0.0; 3]));
    assert_eq!(cache.stored(0), (vec![0.0; 3], vec![0.0; 3]));
}

/// The most that a number of a block with this peak is changed by: half a step, and what rounding the step to f16 takes
/// from 127 of them.
pub(super) fn q8_0_error(peak: f32) -> f64 {
    let d = peak as f64 / 127.0;
    d * 0.5 * (1.0 + 1e-5) + 127.0 * (d * 2f64.powi(-11)).max(2f64.powi(-25))
}

#[test]
fn bytes_follow_their_definition() {
    use crate::mem::aligned::RawBytes;
    use crate::tensor::dequant::{dequantize_row, quantize_row};
    let mut rng = Rng(12);
    for n in [1, 31, 32, 33, 64, 100] {
        for size in [1.0, 300.0, 1e-3, 1e-7, 8e6] {
            let rows: Vec<_> = (0..32).map(|_| (rng.units(n, size), rng.units(n, size))).collect();
            let cache = Cache::filled(&SCALAR, 32, (n, n), KvType::Q8_0.into(), |p| rows[p].clone());
            for (p, (k, v)) in rows.iter().enumerate() {
                let (stored_k, stored_v) = cache.stored(p);
                for (given, stored) in [(k, stored_k), (v, stored_v)] {
                    // The same as the tensor type of that name, the rest of a block filled up with zeros.
                    let mut padded = given.clone();
                    padded.resize(n.next_multiple_of(32), 0.0);
                    let (mut bytes, mut expected) = (vec![0; padded.len() / 32 * 34], padded.clone());
                    quantize_row(DType::Q8_0, &padded, &mut bytes).unwrap();
                    dequantize_row(DType::Q8_0, RawBytes::new(&bytes), &mut expected);
                    same("as the tensor", &stored, &expected[..n]);
                    for (given, stored) in given.chunks(32).zip(stored.chunks(32)) {
                        let bound = q8_0_error(given.iter().fold(0.0, |peak, x| x.abs().max(peak)));
                        for (given, stored) in given.iter().zip(stored) {
                            close("byte", *stored, *given as f64, bound);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn halves_convert_like_ieee() {
    for h in 0..=u16::MAX {
        let (got, expected) = (super::vector::widen(h), half::f16::from_bits(h).to_f32_const());
        assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{h:#x}");
    }
    let mut words = [0u32; 8];
    let mut stored = |x: f32| {
        (SCALAR.store_key[KvType::F16.index()])(&[x], 5, bytemuck::cast_slice_mut(&mut words));
        bytemuck::cast_slice::<u32, u16>(&words)[5]
    };
    for bits in (0..=u32::MAX).step_by(97) {
        let x = f32::from_bits(bits);
        let (got, expected) = (stored(x), half::f16::from_f32_const(x));
        assert!(got == expected.to_bits() || expected.is_nan() && got & 0x7fff > 0x7c00, "{x:e}");
    }
    // Every tie between two neighbours, and what lies next to it.
    for h in 0..0x7c00u16 {
        let (low, high) = (super::vector::widen(h), super::vector::widen(h + 1));
        let high = if high.is_infinite() { 65536.0 } else { high };
        let tie = (low + high) * 0.5;
        for x in [f32::from_bits(tie.to_bits() - 1), tie, f32::from_bits(tie.to_bits() + 1), -tie] {
            assert_eq!(stored(x), half::f16::from_f32_const(x).to_bits(), "{x:e}");
        }
    }
}

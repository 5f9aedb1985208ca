//! Against `f64`, with the stated bounds. `std` is linked in tests only.

extern crate std;

use super::*;

/// Distance of `got` from `exact` in units in the last place of `exact` as an `f32`.
fn ulps(got: f32, exact: f64) -> f64 {
    if got as f64 == exact
        || (got.is_nan() && exact.is_nan())
        || (exact as f32).is_infinite() && got.is_infinite()
    {
        return 0.0;
    }
    let exponent = ((exact.abs().to_bits() >> 52) as i32 - 1023).max(-126);
    (got as f64 - exact).abs() / 2f64.powi(exponent - 23)
}

fn ulps64(got: f64, exact: f64) -> f64 {
    let next = f64::from_bits(exact.abs().to_bits() + 1);
    (got - exact).abs() / (next - exact.abs())
}

/// Every `step`-th float, of either sign, NaN and infinities included.
fn floats(step: usize) -> impl Iterator<Item = f32> {
    (0..=u32::MAX).step_by(step).map(f32::from_bits)
}

/// `erf` by its series and, further out, its continued fraction.
fn erf_exact(x: f64) -> f64 {
    let a = x.abs();
    let result = if a < 2.5 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            term *= -a * a / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * core::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..80).rev().fold(a, |f, k| a + k as f64 / 2.0 / f);
        1.0 - (-a * a).exp() / fraction * core::f64::consts::FRAC_2_SQRT_PI / 2.0
    };
    result.copysign(x)
}

fn worst(inputs: impl Iterator<Item = f32>, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
    let mut worst = (0.0, 0.0);
    for x in inputs {
        let error = ulps(f(x), exact(x as f64));
        assert!(!error.is_nan(), "{x}: {} instead of {}", f(x), exact(x as f64));
        if error > worst.0 {
            worst = (error, x);
        }
    }
    std::eprintln!("worst error {:.3} ulp at {}", worst.0, worst.1);
    worst.0
}

#[test]
fn exp_is_within_one_ulp_everywhere() {
    assert!(worst(floats(997), exp, f64::exp) <= 1.0);
    // Densely where the result is subnormal, and where attention and activations live.
    assert!(worst((0..3_000_000).map(|i| -104.5 + i as f32 * 6e-6), exp, f64::exp) <= 1.0);
    assert!(worst((0..3_000_000).map(|i| -20.0 + i as f32 * 7e-6), exp, f64::exp) <= 1.0);
}

#[test]
fn exp_keeps_its_edges_and_its_order() {
    assert_eq!(exp(0.0).to_bits(), 1f32.to_bits());
    assert_eq!(exp(-0.0).to_bits(), 1f32.to_bits());
    assert_eq!(exp(f32::NEG_INFINITY).to_bits(), 0);
    assert_eq!(exp(-104.0).to_bits(), 0);
    assert_eq!(exp(-103.9).to_bits(), 1);
    assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    assert_eq!(exp(f32::from_bits(EXP_TOP + 1)), f32::INFINITY);
    assert!(exp(f32::from_bits(EXP_TOP)).is_finite());
    assert!(exp(f32::NAN).is_nan() && exp(-f32::NAN).is_nan());
    let mut last = 0.0;
    for i in 0..4_000_000 {
        let y = exp(-105.0 + i as f32 * 5e-5);
        assert!(y >= last, "falls at {i}");
        last = y;
    }
}

#[test]
fn the_exponential_of_softmax_has_the_bits_of_the_other() {
    for i in 0..12_000_000 {
        let x = -90.0 + i as f32 * 7.5e-6;
        let exact = exp(x);
        let expected = if exact < f32::MIN_POSITIVE { 0.0 } else { exact };
        assert_eq!(exp_nonpositive(x).to_bits(), expected.to_bits(), "{x}");
    }
    assert_eq!([0.0, -0.0, f32::NEG_INFINITY, f32::MIN].map(exp_nonpositive), [1.0, 1.0, 0.0, 0.0]);
    for payload in [0x7fc0_0000u32, 0xffc0_0000, 0x7f80_0001, 0xffff_ffff, 0x7fc0_01ff] {
        assert!(exp_nonpositive(f32::from_bits(payload)).is_nan(), "{payload:x}");
    }
}

const EXP_TOP: u32 = 0x42b1_7217;

#[test]
fn tanh_erf_and_sigmoid_are_close() {
    assert!(worst(floats(997), tanh, f64::tanh) <= 3.0);
    assert!(worst((0..3_000_000).map(|i| i as f32 * 5e-6 - 5.0), tanh, f64::tanh) <= 3.0);
    assert!(worst(floats(9973), erf, erf_exact) <= 2.0);
    assert!(worst((0..500_000).map(|i| i as f32 * 1e-5 - 0.5), erf, erf_exact) <= 2.0);
    assert!(worst(floats(997).filter(|x| *x > -87.0), sigmoid, |x| 1.0 / (1.0 + (-x).exp())) <= 2.5);
    for f in [tanh, erf] {
        assert_eq!(f(0.0).to_bits(), 0);
        assert_eq!(f(-0.0).to_bits(), 0x8000_0000);
        assert_eq!((f(f32::INFINITY), f(f32::NEG_INFINITY)), (1.0, -1.0));
        assert!(f(f32::NAN).is_nan());
        for x in floats(10_007).filter(|x| !x.is_nan()) {
            assert!(f(x).abs() <= 1.0 && f(-x) == -f(x), "{x}");
        }
    }
    assert_eq!((sigmoid(f32::INFINITY), sigmoid(f32::NEG_INFINITY)), (1.0, 0.0));
}

#[test]
fn the_square_root_is_the_one_of_the_machine() {
    for x in floats(101) {
        let (got, expected) = (sqrt(x), x.sqrt());
        assert!(got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(), "{x}");
    }
    // All mantissas of two octaves, where every rounding case occurs, and all small subnormal numbers.
    for bits in (0x3f80_0000..0x4080_0000).chain(0..0x2_0000) {
        let x = f32::from_bits(bits);
        assert_eq!(sqrt(x).to_bits(), x.sqrt().to_bits(), "{x}");
    }
    assert_eq!(rsqrt(4.0), 0.5);
    assert_eq!(rsqrt(0.0), f32::INFINITY);
}

#[test]
fn logarithms_are_close() {
    assert!(worst(floats(4999), ln, f64::ln) <= 0.51);
    for i in 1..2_000_000u64 {
        let x = f64::from_bits(i.wrapping_mul(0x0009_37a5_1c8b_4e61) >> 1);
        if x.is_finite() {
            assert!(ulps64(ln64(x), x.ln()) <= 1.0, "{x}");
        }
    }
    assert_eq!((ln64(1.0), ln64(0.0)), (0.0, f64::NEG_INFINITY));
    assert_eq!(ln64(f64::INFINITY), f64::INFINITY);
    assert!(ln64(-1.0).is_nan() && ln64(f64::NAN).is_nan());
    assert!(ulps64(ln64(5e-324), 5e-324f64.ln()) <= 1.0);
}

#[test]
fn exp64_is_close() {
    // `std` has an error of its own of up to 0.5 ulp or more.
    for i in 0..2_000_000 {
        let x = -708.0 + i as f64 * 7.08e-4;
        let error = ulps64(exp64(x), x.exp());
        assert!(error <= 1.0, "{x}: {error}");
    }
    assert_eq!((exp64(0.0), exp64(f64::NEG_INFINITY), exp64(710.0)), (1.0, 0.0, f64::INFINITY));
    assert!(exp64(f64::NAN).is_nan());
    assert!((exp64(-740.0) - (-740f64).exp()).abs() <= 1e-323);
    assert!(exp64(709.78).is_finite());
}

#[test]
fn pow_is_exact_enough_for_frequencies() {
    for base in [10_000.0, 500_000.0, 1_000_000.0, 5e6, 1.0, 2.0, 0.3] {
        for dim in [32, 64, 80, 96, 128, 160, 256, 512] {
            for i in 0..dim / 2 {
                let e = -2.0 * i as f64 / dim as f64;
                let (got, exact) = (pow(base, e), base.powf(e));
                assert!((got - exact).abs() <= 4.5e-16 * exact, "{base}^{e}: {got} {exact}");
            }
        }
    }
    assert_eq!((pow(2.0, 10.0), pow(10.0, 0.0), pow(9.0, 0.5)), (1024.0, 1.0, 3.0));
    assert_eq!((pow(10.0, 400.0), pow(10.0, -400.0)), (f64::INFINITY, 0.0));
    assert!(pow(-2.0, 2.0).is_nan() && pow(f64::NAN, 1.0).is_nan() && pow(2.0, f64::NAN).is_nan());
}

#[test]
fn angles_up_to_a_million() {
    for i in 0..4_000_000 {
        let x = if i % 2 == 0 { i as f32 * 0.25 } else { i as f32 * -3.1e-6 };
        let (sin, cos) = sin_cos(x);
        let (exact_sin, exact_cos) = (x as f64).sin_cos();
        assert!(ulps(sin, exact_sin) <= 0.51 && ulps(cos, exact_cos) <= 0.51, "{x}");
        let (sin, cos) = sin_cos64(x as f64);
        assert!((sin - exact_sin).abs() < 3e-16 && (cos - exact_cos).abs() < 3e-16, "{x}");
    }
    assert_eq!(sin_cos(0.0), (0.0, 1.0));
    assert!(sin_cos(f32::INFINITY).0.is_nan() && sin_cos(1e10).1.is_nan() && sin_cos(f32::NAN).0.is_nan());
}

#[test]
fn integers_are_found() {
    for x in floats(997) {
        let (floor_, even) = (floor(x), round_even(x));
        assert!(floor_ == x.floor() || x.is_nan() && floor_.is_nan(), "{x}");
        assert!(even.to_bits() == x.round_ties_even().to_bits() || x.is_nan() && even.is_nan(), "{x}");
    }
    assert_eq!((round_even(2.5), round_even(-3.5), floor(-0.5)), (2.0, -4.0, -1.0));
}

/// The bits of every function as they were when this was written: the same on every machine, and for ever.
#[test]
fn bits_are_pinned() {
    let mut digest = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bits: u64| digest = (digest ^ bits).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
    for x in floats(9973).filter(|x| !x.is_nan()) {
        let (sin, cos) = sin_cos(x);
        for y in [exp(x), tanh(x), erf(x), sigmoid(x), ln(x), sqrt(x), rsqrt(x), sin, cos, floor(x)] {
            add(if y.is_nan() { 1 } else { y.to_bits() as u64 });
        }
        let x = x as f64;
        for y in [exp64(x), ln64(x), pow(x, -0.37), pow(1.7, x)] {
            add(if y.is_nan() { 1 } else { y.to_bits() });
        }
    }
    assert_eq!(digest, 0x35fd_d188_8726_0882, "{digest:#018x}");
}

//! Square roots without the help of a machine instruction, which `core` does not offer.

/// The square root, correctly rounded: the same as IEEE 754's for every input. NaN for negative numbers.
pub fn sqrt(x: f32) -> f32 {
    if x.is_nan() || x <= 0.0 || x == f32::INFINITY {
        return if x < 0.0 { f32::NAN } else { x };
    }
    // Subnormal numbers are converted as integers, in steps of 2^-149, so that nothing can flush them.
    let bits = x.to_bits();
    let step = f64::from_bits((1023 - 149) << 52);
    let wide = if bits < 0x0080_0000 { bits as f64 * step } else { x as f64 };
    // Newton's method for 1 / sqrt, from the classic first guess by halving the exponent; four steps leave 1e-15.
    let mut inverse = f64::from_bits(0x5fe6_eb50_c7b5_37a9 - (wide.to_bits() >> 1));
    for _ in 0..4 {
        inverse = inverse * (1.5 - 0.5 * wide * inverse * inverse);
    }
    // The guess is at most one step off. The midpoint to a neighbour has 25 bits, so its square is exact in 53, and
    // comparing it with `x` decides beyond doubt. (It cannot be equal: the square of 25 odd bits has more than 24.)
    let guess = (wide * inverse) as f32;
    let (below, above) = (f32::from_bits(guess.to_bits() - 1), f32::from_bits(guess.to_bits() + 1));
    let low = (below as f64 + guess as f64) * 0.5;
    let high = (guess as f64 + above as f64) * 0.5;
    if wide < low * low {
        below
    } else if wide > high * high {
        above
    } else {
        guess
    }
}

/// `1 / sqrt(x)`, each of the two operations correctly rounded.
pub fn rsqrt(x: f32) -> f32 {
    1.0 / sqrt(x)
}

//! The floating-point environment of a thread.

cfg_select! {
    all(any(target_arch = "x86_64", target_arch = "x86"), target_feature = "sse") => {
        pub use super::x86::float_env::FloatEnv;
    }
    target_arch = "aarch64" => {
        pub use super::aarch64::float_env::FloatEnv;
    }
    _ => {
        pub use other::FloatEnv;
    }
}

/// Where nothing can change how floats are computed, or nobody told us how.
#[cfg(not(any(
    all(any(target_arch = "x86_64", target_arch = "x86"), target_feature = "sse"),
    target_arch = "aarch64"
)))]
mod other {
    /// The default floating-point environment, for as long as the value lives; see [`enter`](Self::enter).
    #[derive(Debug)]
    pub struct FloatEnv {
        /// As everywhere: a value belongs to a thread.
        thread: core::marker::PhantomData<*const ()>,
    }

    impl FloatEnv {
        /// Nothing to do on this machine: WebAssembly has one environment only; elsewhere the host must leave the default
        /// one (round to nearest even, subnormal numbers kept) to the threads that run kernels.
        pub fn enter() -> Self {
            Self { thread: core::marker::PhantomData }
        }
    }
}

#[cfg(all(test, any(target_feature = "sse", target_arch = "aarch64")))]
mod tests {
    extern crate std;

    use super::FloatEnv;
    use crate::kernels::testkit_attention::attend;
    use crate::kernels::{Activation, Attention, Kernels, KvBlocks, KvType, KvTypes, SCALAR};
    use core::hint::black_box;
    use std::vec;
    use std::vec::Vec;

    #[cfg(target_arch = "aarch64")]
    use crate::kernels::aarch64::float_env::disturb;
    #[cfg(target_feature = "sse")]
    use crate::kernels::x86::float_env::disturb;

    /// Results through subnormal numbers and through every way of rounding.
    fn results(table: &Kernels) -> Vec<u32> {
        let x: Vec<f32> = (0..100).map(|i| f32::from_bits(i * i * 977 + 3)).collect();
        let y: Vec<f32> = (0..100).map(|i| i as f32 * 0.37 - 18.0).collect();
        let mut out = vec![];
        for input in [&x, &y] {
            for f in [Activation::GeluTanh, Activation::GeluErf, Activation::Silu] {
                let mut x = input.clone();
                (table.activate)(f, &mut x);
                out.extend(x);
            }
            let mut x = input.clone();
            (table.scale)(&mut x, 0.7);
            (table.add)(&mut x, &y[50..]);
            out.extend(&x);
            (table.layer_norm)(&y, &x, input, 1e-5, &mut out[..100]);
            out.push((table.log_sum_exp)(input));
        }
        // Subnormal numbers of each kind.
        let data: Vec<u32> = (0..192).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect();
        let data: &[u8] = bytemuck::cast_slice(&data);
        for types in KvType::ALL.map(KvTypes::from) {
            let kv = KvBlocks { data, pages: &[0, 1, 2], stride: 256, types, dim_k: 2, dim_v: 2 };
            let args = Attention { kv, scale: 1e4, softcap: 0.0 };
            out.extend(attend(table, &y[..4], &args, 0..40));
        }
        out.iter().map(|x| x.to_bits()).collect()
    }

    /// Whether the environment keeps subnormal numbers and rounds to the nearest.
    fn is_default() -> bool {
        black_box(1e-40f32) * black_box(0.5) != 0.0 && black_box(1.0f32) + black_box(1.1e-7) > 1.0
    }

    #[test]
    fn the_host_cannot_show_in_the_results() {
        let expected = results(&SCALAR);
        assert!(is_default());
        let host = disturb();
        let outside = is_default();
        let mine = FloatEnv::enter();
        let (inside, got) = (is_default(), results(black_box(&SCALAR)));
        let nested = FloatEnv::enter();
        drop(nested);
        let still = is_default();
        drop(mine);
        let after = is_default();
        drop(host);
        assert_eq!((outside, inside, still, after, is_default()), (false, true, true, false, true));
        assert_eq!(got, expected);
    }

    #[test]
    fn the_test_would_notice() {
        let expected = results(&SCALAR);
        let host = disturb();
        let got = results(black_box(&SCALAR));
        drop(host);
        assert_ne!(got, expected);
    }
}

//! Blocks against what the `gguf` package makes of them: `golden/quants.bin`, format in `golden/README.md`.

use locutor::mem::aligned::RawBytes;
use locutor::tensor::DType;
use locutor::tensor::dequant::{dequantize_row, quantize_row};
use std::collections::BTreeSet;

/// Reads the golden file front to back.
struct Golden<'g>(&'g [u8]);

impl<'g> Golden<'g> {
    fn bytes(&mut self, len: usize) -> &'g [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes(4).try_into().unwrap())
    }
}

#[test]
fn every_type_agrees_with_the_gguf_package_to_the_bit() {
    let mut golden = Golden(include_bytes!("golden/quants.bin"));
    assert_eq!(golden.bytes(8), b"LCTQUANT");
    let (mut dequantised, mut quantised) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..golden.u32() {
        let name = std::str::from_utf8(golden.bytes(8)).unwrap().trim_end_matches('\0');
        let (direction, id) = (golden.u32(), golden.u32());
        let dtype = DType::from_ggml(id).expect(name);
        assert_eq!(dtype.name(), name);
        assert_eq!(dtype.block(), (golden.u32() as usize, golden.u32() as usize), "{name}");
        let (data_len, count) = (golden.u32() as usize, golden.u32() as usize);
        let data = golden.bytes(data_len);
        let values = golden.bytes(4 * count).chunks_exact(4);
        let values: Vec<f32> = values.map(|v| f32::from_le_bytes(v.try_into().unwrap())).collect();
        if direction == 0 {
            let mut ours = vec![f32::NAN; count];
            assert_eq!(dequantize_row(dtype, RawBytes::new(data), &mut ours), count);
            for (i, (ours, theirs)) in ours.iter().zip(&values).enumerate() {
                assert_eq!(ours.to_bits(), theirs.to_bits(), "{name} value {i}: {ours} is not {theirs}");
            }
            dequantised.insert(name);
        } else {
            let mut ours = vec![0; data_len];
            assert_eq!(quantize_row(dtype, &values, &mut ours), Some(data_len));
            assert_eq!(ours, data, "{name} quantised");
            quantised.insert(name);
        }
    }
    assert!(golden.0.is_empty());
    assert!(quantised.contains("Q8_0") && quantised.contains("Q4_0"), "{quantised:?}");
    // An F32 needs no golden values.
    assert!(dequantised.len() + 1 >= DType::ALL.len(), "{dequantised:?}");
}

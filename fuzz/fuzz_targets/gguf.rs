//! A header of arbitrary bytes: it is refused, or every name and value in it can be read.
#![no_main]

#[path = "common/memory.rs"]
mod memory;

use libfuzzer_sys::fuzz_target;
use locutor::format::gguf::{self, Gguf};
use locutor::mem::{Arena, Plan};

fuzz_target!(|data: &[u8]| {
    // The last byte decides how much longer than the header the file claims to be.
    let Some((&beyond, header)) = data.split_last() else { return };
    let file_len = header.len() as u64 + (u64::from(beyond) << 8);
    let Ok(counts) = gguf::scan(header, file_len) else { return };

    let mut plan = Plan::new();
    let slots = Gguf::plan(&counts, &mut plan).expect("a header in memory has a plan");
    // A file of a few bytes must not ask for memory out of proportion.
    assert!(plan.bytes() <= 4096 + 16 * header.len(), "{} bytes for {}", plan.bytes(), header.len());
    memory::with(plan.bytes(), |memory| {
        let mut arena = Arena::new(memory, &plan).unwrap();
        if let Ok(file) = Gguf::read(header, file_len, &mut arena, &slots) {
            read(&file, file_len);
        }
    });
});

/// Reads every name and value.
fn read(file: &Gguf<'_>, file_len: u64) {
    for entry in file.entries() {
        let name = entry.key.to_owned();
        let value = file.get(name.as_str()).expect("listed, so it is found");
        assert_eq!(value.value_type(), entry.value.value_type());
        let (_, _, _) = (value.as_integer(), value.as_f32(), value.as_bool());
        if let Ok(Some(array)) = file.array(name.as_str()) {
            let _ = array.get(array.len / 2);
            let _ = (
                array.u32s().map(|n| n.count()),
                array.i32s().map(|n| n.count()),
                array.f32s().map(|n| n.count()),
            );
            let _ = array.strings().map(|strings| strings.count());
        }
    }
    for tensor in file.tensors() {
        assert_eq!(file.tensor(file.tensor_name(tensor)).map(|t| t.elements()), Some(tensor.elements()));
        let end = tensor.offset.checked_add(tensor.bytes).expect("checked when it was read");
        assert!(end <= file_len);
    }
}

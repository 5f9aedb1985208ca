#!/usr/bin/env python3
"""Writes a GGUF file again with its matrices as F32, F16 or BF16; everything else stays as it is.

The values are those of gguf.quants.dequantize, rounded to nearest even for F16 and BF16. With such files the error
of an engine's arithmetic shows by itself, without that of quantised activations.
"""

import argparse
import pathlib

import gguf
import numpy as np

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=pathlib.Path, metavar="IN")
    parser.add_argument("output", type=pathlib.Path, metavar="OUT")
    parser.add_argument("--type", choices=TYPES, required=True, help="the type of the matrices")
    options = parser.parse_args()
    convert(options.input, options.output, *TYPES[options.type])


def convert(source, target, kind, file_type):
    """Writes beside the target first, so that a target that exists is whole."""
    reader = gguf.GGUFReader(source)
    part = target.with_name(target.name + ".part")
    writer = gguf.GGUFWriter(part, reader.fields["general.architecture"].contents(), use_temp_file=False)
    copy_metadata(reader, writer, file_type)
    for tensor in reader.tensors:
        add_info(writer, tensor, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(values(tensor, kind))
    writer.close()
    part.rename(target)


def copy_metadata(reader, writer, file_type):
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in (
            "general.architecture",
            "general.file_type",
            "general.quantization_version",
        ):
            continue
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=element)
    writer.add_file_type(file_type)


def kept(tensor):
    """Vectors stay as they are: llama.cpp wants norms and biases in F32."""
    return len(tensor.shape) < 2


def add_info(writer, tensor, kind):
    use = tensor.tensor_type if kept(tensor) else kind
    width = {gguf.GGMLQuantizationType.F32: 4}.get(use, 2)
    shape = [int(n) for n in reversed(tensor.shape)]
    dtype = np.dtype(np.float32 if width == 4 else np.float16)  # only its size counts beside raw_dtype
    writer.add_tensor_info(tensor.name, shape, dtype, tensor.n_elements * width, raw_dtype=use)


def values(tensor, kind):
    """The tensor's bytes in the new type."""
    if kept(tensor):
        return tensor.data
    return np.ascontiguousarray(gguf.quants.quantize(gguf.quants.dequantize(tensor.data, tensor.tensor_type), kind))


if __name__ == "__main__":
    main()

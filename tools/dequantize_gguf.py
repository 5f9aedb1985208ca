#!/usr/bin/env python3
"""Writes a GGUF file again with its matrices in another type; everything else stays as it is.

The values are those of gguf.quants.dequantize, rounded to nearest even for F16 and BF16, and quantised by
gguf.quants.quantize for the others; with those of 4 and 5 bits the embedding and the head become Q8_0, as
llama-quantize does when rows are no multiple of 256. With files of floats the error of an engine's arithmetic shows by itself, without
that of quantised activations. Files quantised again are worse than their source and serve to measure speed.
"""

import argparse
import pathlib
import sys

import gguf
import numpy as np

TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "q4_1": (gguf.GGMLQuantizationType.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
    "q5_0": (gguf.GGMLQuantizationType.Q5_0, gguf.LlamaFileType.MOSTLY_Q5_0),
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
        add_info(writer, tensor, type_of(tensor, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(values(tensor, type_of(tensor, kind)))
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


def type_of(tensor, kind):
    """The type that a tensor gets. Vectors stay as they are: llama.cpp wants norms and biases in F32."""
    if len(tensor.shape) < 2:
        return tensor.tensor_type
    few_bits = kind.name.startswith(("Q4", "Q5"))
    if few_bits and tensor.name in ("token_embd.weight", "output.weight"):
        return gguf.GGMLQuantizationType.Q8_0
    return kind


def add_info(writer, tensor, use):
    shape = [int(n) for n in reversed(tensor.shape)]
    block, size = gguf.GGML_QUANT_SIZES[use]
    if shape[-1] % block:
        sys.exit(f"{tensor.name}: rows of {shape[-1]} values are no whole blocks of {block}")
    # The shape is that of the values: the element type beside raw_dtype must not be bytes, which mean blocks.
    writer.add_tensor_info(
        tensor.name, shape, np.dtype(np.float16), tensor.n_elements // block * size, raw_dtype=use
    )


def values(tensor, use):
    """The tensor's bytes in its new type."""
    if use == tensor.tensor_type:
        return tensor.data
    return np.ascontiguousarray(gguf.quants.quantize(gguf.quants.dequantize(tensor.data, tensor.tensor_type), use))


if __name__ == "__main__":
    main()

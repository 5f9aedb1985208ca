#!/usr/bin/env python3
"""Writes a GGUF file again with its matrices as floats; everything else stays as it is.

The values are those of gguf.quants.dequantize, rounded to nearest even for F16 and BF16. With such a file the error
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
        add_info(writer, tensor, type_of(tensor, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        writer.write_tensor_data(values(tensor, type_of(tensor, kind)))
    writer.close()
    part.rename(target)


# What the writer sets by itself, or what changes with the types.
OWN = ("general.architecture", "general.file_type", "general.quantization_version")


def copy_metadata(reader, writer, file_type):
    copy_fields(reader, writer, lambda name: not name.startswith("GGUF.") and name not in OWN)
    writer.add_file_type(file_type)


def copy_fields(reader, writer, wanted):
    """The fields whose names are wanted, with their types."""
    for name, field in reader.fields.items():
        if wanted(name):
            element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=element)


def type_of(tensor, kind):
    """The type that a tensor gets. Vectors stay as they are: llama.cpp wants norms and biases in F32."""
    return tensor.tensor_type if len(tensor.shape) < 2 else kind


def add_info(writer, tensor, use):
    shape = [int(n) for n in reversed(tensor.shape)]
    block, size = gguf.GGML_QUANT_SIZES[use]
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

"""Whisper's encoder from a CTranslate2 file, as weights of a `Qwen2AudioEncoder`.

    python -m recipes.base.whisper model.bin encoder.safetensors

A CTranslate2 model (binary version 6) is a list of named arrays. Qwen2-Audio's encoder is Whisper's own with an
average pooling by 2, which has no weights, between the last layer and the last norm; so all weights carry over.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

BINARY_VERSION = 6
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # indexed by their number in the file


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.place = memoryview(data), 0

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.place)
        self.place += struct.calcsize("<" + code)
        return int(value)

    def bytes(self, count: int) -> memoryview:
        self.place += count
        return self.data[self.place - count : self.place]

    def string(self) -> str:
        return bytes(self.bytes(self.number("H"))).rstrip(b"\0").decode()


def read_ctranslate2(path: Path) -> dict[str, np.ndarray]:
    """Every array of a CTranslate2 model by name, in its own number format; raises `ValueError` for another version."""
    reader = _Reader(path.read_bytes())
    if (version := reader.number("I")) != BINARY_VERSION:
        raise ValueError(f"{path} has CTranslate2's binary version {version}; only {BINARY_VERSION} can be read")
    reader.string(), reader.number("I")  # skips the name and revision of the model's specification
    arrays = {}
    for _ in range(reader.number("I")):
        name = reader.string()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        dtype = _DTYPES[reader.number("B")]
        arrays[name] = np.frombuffer(reader.bytes(reader.number("I")), dtype).reshape(shape)
    return arrays


def encoder_weights(path: Path) -> dict[str, torch.Tensor]:
    """The encoder's weights by the names of `Qwen2AudioEncoder`, in the file's own number format."""
    arrays = {name: torch.from_numpy(np.array(array)) for name, array in read_ctranslate2(path).items()}
    weights = {"embed_positions.weight": arrays["encoder/position_encodings/encodings"]}

    def linear(name: str, source: str) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = arrays[f"{source}/weight"], arrays[f"{source}/bias"]

    def norm(name: str, source: str) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = arrays[f"{source}/gamma"], arrays[f"{source}/beta"]

    linear("conv1", "encoder/conv1")
    linear("conv2", "encoder/conv2")
    norm("layer_norm", "encoder/layer_norm")
    layer = 0
    while f"encoder/layer_{layer}/ffn/linear_0/weight" in arrays:
        name, source = f"layers.{layer}", f"encoder/layer_{layer}"
        joined = [arrays[f"{source}/self_attention/linear_0/{part}"].chunk(3) for part in ("weight", "bias")]
        for projection, weight, bias in zip("qkv", *joined, strict=True):
            weights[f"{name}.self_attn.{projection}_proj.weight"] = weight.clone()
            if projection != "k":  # Whisper's keys have no bias; the file has zeros
                weights[f"{name}.self_attn.{projection}_proj.bias"] = bias.clone()
        linear(f"{name}.self_attn.out_proj", f"{source}/self_attention/linear_1")
        norm(f"{name}.self_attn_layer_norm", f"{source}/self_attention/layer_norm")
        linear(f"{name}.fc1", f"{source}/ffn/linear_0")
        linear(f"{name}.fc2", f"{source}/ffn/linear_1")
        norm(f"{name}.final_layer_norm", f"{source}/ffn/layer_norm")
        layer += 1
    return weights


if __name__ == "__main__":
    save_file(encoder_weights(Path(sys.argv[1])), sys.argv[2])

"""A Whisper encoder in CTranslate2's format, small and random: what `recipes/base/fetch.sh` fetches, for tests."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

WIDTH, LAYERS, POSITIONS = 64, 2, 1500
NUMBERS = {np.dtype(np.float32): 0, np.dtype(np.float16): 4}


def encoder_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays by CTranslate2's names, float16."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"encoder/position_encodings/encodings": (POSITIONS, WIDTH)}
    for name, shape in {
        "conv1": (WIDTH, 80, 3),
        "conv2": (WIDTH, WIDTH, 3),
        **{f"layer_{layer}/self_attention/linear_0": (3 * WIDTH, WIDTH) for layer in range(LAYERS)},
        **{f"layer_{layer}/self_attention/linear_1": (WIDTH, WIDTH) for layer in range(LAYERS)},
        **{f"layer_{layer}/ffn/linear_0": (4 * WIDTH, WIDTH) for layer in range(LAYERS)},
        **{f"layer_{layer}/ffn/linear_1": (WIDTH, 4 * WIDTH) for layer in range(LAYERS)},
    }.items():
        shapes |= {f"encoder/{name}/weight": shape, f"encoder/{name}/bias": shape[:1]}
    for name in ("layer_norm", *(f"layer_{i}/{part}/layer_norm" for i in range(LAYERS) for part in ("self_attention", "ffn"))):
        shapes |= {f"encoder/{name}/gamma": (WIDTH,), f"encoder/{name}/beta": (WIDTH,)}
    return {name: (0.1 * rng.standard_normal(shape)).astype(np.float16) for name, shape in shapes.items()}


def write_ctranslate2(path: Path, arrays: dict[str, np.ndarray], version: int = 6) -> None:
    """Write arrays as CTranslate2 does, without aliases."""

    def text(value: str) -> bytes:
        data = value.encode() + b"\0"
        return struct.pack("<H", len(data)) + data

    parts = [struct.pack("<I", version), text("WhisperSpec"), struct.pack("<II", 3, len(arrays))]
    for name, array in arrays.items():
        parts += [text(name), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        parts += [struct.pack("<BI", NUMBERS[array.dtype], array.nbytes), array.tobytes()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join([*parts, struct.pack("<I", 0)]))

"""Whether a processor supports bfloat16 natively, how slow it is otherwise, and how many plans oneDNN caches for it."""

from __future__ import annotations

import functools
import logging
import os
import platform
import time

logger = logging.getLogger("simulsa")

_WIDTH, _ROWS, _ROUNDS = 512, 64, 3  # of the timed matrix product: a layer of a small model


@functools.cache
def has_bfloat16(device: str = "auto") -> bool:
    """Whether `device` has bfloat16 multiply instructions, like most GPUs and CPUs with AVX512-BF16, AMX or Arm's BF16.

    Others are many times slower than in float32.
    """
    import torch

    from simulsa.lalm.device import chosen_device

    device = chosen_device(device)
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return True  # assumed to be supported
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN's own answer also counts AVX512 without BF16, which computes in float32 and rounds
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bound_plans() -> None:
    """Limit oneDNN's cache to plans for 128 shapes, unless the user set another number; call this before the first product.

    The default is 1,024, and clips keep having new shapes: a training run on 14,500 rows in bfloat16 held 8 GB of plans. The
    encoder needs five plans per length of audio, and a stream returns to twenty lengths: a limit of 32 plans cost it 3 % of its
    time.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


def warn_of_slow_bfloat16(device: str, asked: str) -> None:
    """Warn about the measured slowdown if bfloat16 was requested (by the setting `asked`) on a device without support for it."""
    if not has_bfloat16(device):
        logger.warning(
            "%s: this processor has no bfloat16 of its own; a matrix product takes %.1f times as long as in float32",
            asked, slowdown(device),
        )  # fmt: skip


@functools.cache
def slowdown(device: str) -> float:
    """How many times as long a matrix product takes in bfloat16 as in float32, measured now (milliseconds)."""
    import torch

    def seconds(dtype: torch.dtype) -> float:
        left, right = (torch.ones(rows, _WIDTH, dtype=dtype, device=device) for rows in (_ROWS, _WIDTH))
        times = []
        for _ in range(_ROUNDS + 1):  # the first one is a warm-up
            started = time.perf_counter()
            (left @ right).sum().item()
            times.append(time.perf_counter() - started)
        return min(times[1:])

    return seconds(torch.bfloat16) / seconds(torch.float32)

"""4-bit base models: QLoRA (Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import Any

from simulsa.lalm.interface import LALMError

EXTRA = "simulsa[quantization]"
# the names of all modules outside the decoder layers: audio tower, projector and head are not quantised
_ELSEWHERE = r"(?!model\.language_model\.layers\.|model\.layers\.).+"


def loading_options(device: str, dtype: Any) -> dict[str, Any]:
    """Options of `from_pretrained` that quantise the decoder layers to 4 bits (NF4, scales too) and compute in `dtype`.

    Raises `LALMError` when bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise LALMError(f"4 bits need the package bitsandbytes: pip install '{EXTRA}'")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[_ELSEWHERE],
    )
    return {"quantization_config": config, "device_map": {"": device}}

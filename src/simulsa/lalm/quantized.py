"""4-bit base models: QLoRA (Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes."""

from __future__ import annotations

import importlib.util
from typing import Any

from simulsa.lalm.interface import LALMError

EXTRA = "simulsa[quantization]"
# the names of all modules but the decoder layers': audio tower, projector and head stay as they are
_ELSEWHERE = r"(?!model\.language_model\.layers\.|model\.layers\.).+"


def loading_options(device: str, dtype: Any) -> dict[str, Any]:
    """What `from_pretrained` needs to put the decoder layers' matrices into 4 bits (NF4, scales quantised too), computing in
    `dtype`. Raises `LALMError` when bitsandbytes is not installed."""
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

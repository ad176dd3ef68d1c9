"""`merge(run, out)`: an adapter and its base as one whole model, for those who serve without LoRA."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simulsa.files import write_json
from simulsa.lalm.adapters import Adapter, adapter_at
from simulsa.lalm.interface import LALMError
from simulsa.lalm.load import Dtype, load
from simulsa.lalm.parts import RECORD
from simulsa.lalm.preflight import ENGLISH_TO_GERMAN, probe_sounds

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

_SENTENCE = "Ein Mann in einem roten Hemd fährt Fahrrad."
_TOLERANCE_NATS = 1e-3  # the same weights; only the order of additions may differ


def merge(run: str, out: str | Path, dtype: Dtype = "auto") -> None:
    """Write the adapter `run`, merged into its base, as a model folder `out` with processor and generation settings.

    transformers, vLLM and others load the folder like any other model. Everything is computed on the CPU; `dtype` is the number
    format of the weights, float32 by default. The result is loaded again and must translate and score as the adapter does.
    Raises `LALMError` when `run` is no adapter, `out` is taken, or that check fails; then nothing is written.
    """
    out = Path(out)
    adapter = adapter_at(run)
    if adapter is None:
        raise LALMError(f"{run!r} is not an adapter folder, so it has no base model; give a folder written by simulsa train")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LALMError(f"{out}: exists already; choose another --out, or remove it")
    lalm = load(run, "cpu", dtype)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed run
    try:
        lalm.processor.save_pretrained(partial)  # before its first use, which would leave padding in the tokenizer's settings
        before = _behaviour(lalm)
        # loading has merged the adapter into the weights; PEFT merged those that are not plain LoRA
        whole = lalm.model.unload() if hasattr(lalm.model, "unload") else lalm.model
        whole.save_pretrained(partial)
        del whole
        write_json(partial / RECORD, _record(adapter, lalm))
        del lalm  # before the model is loaded again
        _check_same(run, before, _behaviour(load(str(partial), "cpu", dtype)))
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _record(adapter: Adapter, lalm: HuggingFaceLALM) -> dict[str, object]:
    """What the whole model was made from, and what is known about the adapter's training."""
    return {
        "merged_from": lalm.signature,
        **({"instruction": lalm.instruction} if lalm.instruction else {}),
        **({"training": adapter.record} if adapter.record else {}),
    }


def _behaviour(lalm: HuggingFaceLALM) -> tuple[list[int], np.ndarray]:
    """What the model says to a chirp, and the log-probabilities of a sentence."""
    heard = lalm.hear(probe_sounds()[:1], [ENGLISH_TO_GERMAN])
    (said,) = lalm.continue_(heard, [[]])
    (scores,) = lalm.score(heard, [lalm.encode(_SENTENCE)])
    return said.tokens, scores.log_probs


def _check_same(run: str, before: tuple[list[int], np.ndarray], after: tuple[list[int], np.ndarray]) -> None:
    difference = float(np.max(np.abs(before[1] - after[1])))
    if before[0] != after[0] or difference > _TOLERANCE_NATS:
        raise LALMError(
            f"{run}: merged, saved and loaded again, the model translates differently (log-probabilities by {difference:.3g} "
            "nats); use the adapter on its base"
        )

"""Quick checks that catch silent faults of audio-language models before hours are spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.interface import LALM, LALMError
from simulsa.languages import Direction

if TYPE_CHECKING:
    from simulsa.lalm.model import HuggingFaceLALM

ENGLISH_TO_GERMAN = Direction("en", "de")
_DEAF_BELOW_NATS = 1e-4  # a model whose log-probabilities differ by no more than this between two sounds does not hear
_TOLERANCE_NATS = {True: 1e-2, False: 0.5}  # between batch and single rows, by whether the model is in float32


class InexactError(LALMError):
    """A model whose answers depend on the batch, or on the decoding path."""


def preflight(lalm: LALM, direction: Direction = ENGLISH_TO_GERMAN) -> None:
    """Check that the model hears, that a batch equals its rows, and that prefix forcing and drafts equal free decoding.

    Takes seconds. Raises `LALMError` with the failed check and its meaning. Half-precision models are compared by
    log-probabilities within a tolerance instead of by tokens, because near-ties may fall either way.
    """
    sounds = probe_sounds()
    exact = lalm.exact
    heard = lalm.hear(sounds, [direction] * len(sounds))
    outputs = _continued(lalm, heard, [[] for _ in sounds])
    probe = (outputs[0] or lalm.encode("The"))[:16]

    batch = [scores.log_probs for scores in lalm.score(heard, [probe] * len(sounds))]
    _check_hearing(lalm, batch)
    for number, (sound, together) in enumerate(zip(sounds, batch, strict=True)):
        alone = lalm.score(lalm.hear([sound], [direction]), [probe])[0].log_probs
        difference = float(np.max(np.abs(alone - together)))
        if difference > _TOLERANCE_NATS[exact]:
            raise InexactError(
                f"{lalm.name}: clip {number} scores differently in a batch than alone (by {difference:.3g} nats); "
                "this model mixes rows of different lengths: use --batch-size 1"
            )
    if exact:
        _check_decoding(lalm, sounds, outputs, direction)


def check_logits(lalm: HuggingFaceLALM) -> None:
    """Check that the model's own forward gives the same logits as the LALM; raises `LALMError` if it adds a step."""
    import torch

    clip = lalm.frontend.prepare(probe_sounds()[0], ENGLISH_TO_GERMAN)
    ids = torch.tensor([clip.prompt], device=lalm.device)
    with torch.no_grad():
        ours = lalm.decoder.logits(lalm.forward(lalm.listen([clip]), [[]])[:, -1])
        whole = lalm.model(input_ids=ids, attention_mask=torch.ones_like(ids), **lalm.moved(clip.features))
    theirs = whole.logits[:, -1].float()
    difference = float((ours - theirs)[ours.isfinite()].abs().max())
    if difference > _TOLERANCE_NATS[lalm.exact]:
        raise LALMError(f"{lalm.name}: the model's own logits differ from head times hidden states, by {difference:.3g}")


def _check_hearing(lalm: LALM, log_probs: list[np.ndarray]) -> None:
    # compare only the first two sounds, which are equally long: a different length alone would change a deaf model's scores
    difference = float(np.max(np.abs(log_probs[0] - log_probs[1])))
    if difference < _DEAF_BELOW_NATS:
        raise LALMError(
            f"{lalm.name}: the model does not hear: different sounds change its log-probabilities by {difference:.1g} nats at "
            "most; its processor drops the audio or its weights are not those of an audio-language model"
        )


def _check_decoding(lalm: LALM, sounds: list[np.ndarray], outputs: list[list[int]], direction: Direction) -> None:
    alone = [_continued(lalm, lalm.hear([sound], [direction]), [[]])[0] for sound in sounds]
    if alone != outputs:
        raise InexactError(f"{lalm.name}: a batch decodes to other tokens than its rows alone; use --batch-size 1")
    halves = [len(output) // 2 for output in outputs]
    heads = [output[:half] for output, half in zip(outputs, halves, strict=True)]
    tails = [output[half:] for output, half in zip(outputs, halves, strict=True)]
    heard = lalm.hear(sounds, [direction] * len(sounds))
    if _continued(lalm, heard, heads) != tails:
        raise InexactError(f"{lalm.name}: continuing a forced prefix differs from decoding freely; its prompt is not stable")
    wrong_end = [[*tail[: len(tail) // 2], lalm.eos_id] for tail in tails]
    if _continued(lalm, heard, heads, wrong_end) != tails:
        raise InexactError(f"{lalm.name}: verifying a draft changes the translation; its attention ignores the mask")


def _continued(
    lalm: LALM, heard: Sequence[Any], prefixes: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]] | None = None
) -> list[list[int]]:
    return [said.tokens for said in lalm.continue_(heard, prefixes, drafts)]


def probe_sounds() -> list[np.ndarray]:
    """A chirp, bursts of noise and a shorter noise, float32 at `SAMPLE_RATE`."""
    rng = np.random.default_rng(0)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    chirp = 0.3 * np.sin(2 * np.pi * (200 * time + 900 * time**2))
    noise = 0.1 * rng.standard_normal(SAMPLE_RATE)
    bursts = noise * (np.sin(2 * np.pi * 3 * time) > 0)
    lengths = (SAMPLE_RATE, SAMPLE_RATE, SAMPLE_RATE * 3 // 5)
    sounds = zip((chirp, bursts, noise), lengths, strict=True)
    return [sound[:length].astype(np.float32) for sound, length in sounds]

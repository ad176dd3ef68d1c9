"""Log-mel features of a whole batch on the model's device: a step must not wait for the processor to go through it clip by clip.

Only for processors with a `WhisperFeatureExtractor` whose prompts depend on nothing but a clip's length. The processor itself
makes the prompt, once for each length in frames, so that this module needs to know nothing about the families.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from simulsa.lalm.device import copied
from simulsa.lalm.families import extractor_of
from simulsa.lalm.frontend import MIN_SAMPLES, Frontend, PreparedClip
from simulsa.lalm.window import padded_samples
from simulsa.languages import Direction

MOST_FORMS = 4096  # lengths whose prompts are cached
TOLERANCE = 1e-3  # largest difference from the processor's features, which lie between about -1 and 2
_CONTENT = "input_features"  # what depends on the audio itself; the rest depends on its length

logger = logging.getLogger("simulsa")


class BatchFrontend:
    """`Frontend.prepare` for a batch on `device`: the same prompts as clip by clip, and the same features up to rounding.

    The first clip is prepared both ways. If they differ, this is logged once, and the frontend's own way is used from then on.
    """

    def __init__(self, frontend: Frontend, device: torch.device) -> None:
        self._frontend, self._device = frontend, device
        self._extractor: Any = extractor_of(frontend.processor)
        self._forms: OrderedDict[tuple[Direction, int, int], PreparedClip] = OrderedDict()
        self._agrees: bool | None = None  # not known yet

    def prepare(self, audios: Sequence[np.ndarray], directions: Sequence[Direction]) -> list[PreparedClip]:
        """Features and prompts of clips, float32 mono `[samples]` at `SAMPLE_RATE`."""
        if self._agrees is False:
            return self._by_processor(audios, directions)
        forms = [self._form(audio, asked) for audio, asked in zip(audios, directions, strict=True)]
        features = self._log_mel(audios)
        if self._agrees is None and not self._compare(self._frontend.prepare(audios[0], directions[0]), features[0]):
            return self._by_processor(audios, directions)
        return [
            replace(form, features={**form.features, _CONTENT: own}, samples=len(audio))
            for form, own, audio in zip(forms, features, audios, strict=True)
        ]

    def _by_processor(self, audios: Sequence[np.ndarray], directions: Sequence[Direction]) -> list[PreparedClip]:
        return [self._frontend.prepare(audio, asked) for audio, asked in zip(audios, directions, strict=True)]

    def _form(self, audio: np.ndarray, asked: Direction) -> PreparedClip:
        """What the processor returns for any clip of as many frames and as much padding: all but the features of the audio."""
        row = asked, -(-len(audio) // self._extractor.hop_length), self._padded(audio)
        if row in self._forms:
            self._forms.move_to_end(row)
            return self._forms[row]
        clip = self._frontend.prepare(audio, asked)
        rest = {name: copied(tensor, self._device) for name, tensor in clip.features.items() if name != _CONTENT}
        form = self._forms[row] = replace(clip, features=rest)
        if len(self._forms) > MOST_FORMS:
            self._forms.popitem(last=False)
        return form

    def _padded(self, audio: np.ndarray) -> int:
        return padded_samples(max(len(audio), MIN_SAMPLES), self._extractor)

    def _compare(self, clip: PreparedClip, features: torch.Tensor) -> bool:
        own = clip.features[_CONTENT].to(self._device)
        self._agrees = own.shape == features.shape and bool((own - features).abs().max() < TOLERANCE)
        if not self._agrees:
            logger.warning(
                "%s: features computed on the %s differ from the processor's, whose own are used, which is slower",
                self._frontend.name, self._device.type,
            )  # fmt: skip
        return self._agrees

    def _log_mel(self, audios: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Float32 `[1, mels, frames]` of each clip (Whisper, arXiv 2212.04356, 2.2): one transform for all of them.

        The silence after shorter clips changes nothing: the floor depends only on a clip's loudest frame.
        """
        extractor = self._extractor
        lengths = [self._padded(audio) for audio in audios]
        batch = np.zeros((len(audios), max(lengths)), dtype=np.float32)
        for row, audio in zip(batch, audios, strict=True):
            row[: len(audio)] = audio
        waves = copied(torch.from_numpy(batch), self._device)
        window = torch.hann_window(extractor.n_fft, device=self._device)
        filters = torch.from_numpy(extractor.mel_filters).to(self._device, torch.float32)
        spectra = torch.stft(waves, extractor.n_fft, extractor.hop_length, window=window, return_complex=True)
        mels = filters.T @ spectra[..., :-1].abs().square()
        logs = mels.clamp(min=1e-10).log10()
        logs = (torch.maximum(logs, logs.amax((1, 2), keepdim=True) - 8) + 4) / 4
        return [own[None, :, : length // extractor.hop_length] for own, length in zip(logs, lengths, strict=True)]

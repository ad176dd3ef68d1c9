"""A model whose weights are on a vLLM server: audio and token ids are sent, tokens and log-probabilities come back.

Configuration, tokenizer and processor are local. The processor only makes prompts: the server extracts the features itself, and
every answer states the prompt it was made from.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.endings import LEAST_TOKENS, eos_ids, token_limit
from simulsa.lalm.families import audio_token_id, context_tokens, extractor_of, longest_clip, thinker_config
from simulsa.lalm.frontend import MIN_SAMPLES, Frontend, check_lengths
from simulsa.lalm.interface import TOKENS_ONLY, Continuation, LALMError, TokenScores, Want
from simulsa.lalm.parts import Parts, errors_about
from simulsa.lalm.preflight import ENGLISH_TO_GERMAN, InexactError, preflight
from simulsa.lalm.vllm_client import Request, VLLMClient, VLLMError, encode_audio
from simulsa.languages import Direction

KEY = "VLLM_API_KEY"  # the variable that vLLM itself takes its key from
UNMASKED = (
    "the server does not mask the audio placeholder token, so log-probabilities and some ranks are slightly off; install "
    "simulsa in vLLM's environment: its plugin masks the token (docs/engines.md)"
)
_PROMPTS = 4096  # prompts to cache, by direction and length
_CERTAIN = 100.0  # added to a token's logit to force it, if it can be generated at all

logger = logging.getLogger("simulsa")


@dataclass(frozen=True)
class SentClip:
    """A clip as sent: the prompt's token ids, with a placeholder for each audio token, and a WAV file in base64."""

    prompt: tuple[int, ...]
    audio: str
    samples: int

    @property
    def nbytes(self) -> int:
        """The memory of audio and prompt."""
        return len(self.audio) + 8 * len(self.prompt)

    def detached(self) -> SentClip:
        """The clip itself, because it shares no memory with its batch."""
        return self


class EngineLALM:
    """A model on a vLLM server; implements `LALM`.

    `number_format` is the one that the server computes in, which it does not report. `exact` is only assumed until `check` has
    confirmed it. `max_target_tokens` bounds translations as in `HuggingFaceLALM`. Raises `LALMError` for a server that cannot
    be used or has too small a context, and for a model that has no audio token.
    """

    frontend = device = None  # audio is sent as it is, to weights elsewhere

    def __init__(self, parts: Parts, url: str, names: Sequence[str], number_format: str) -> None:
        config = thinker_config(parts.config)
        placeholder = audio_token_id(config)
        if placeholder is None:
            raise LALMError(f"{parts.name}: its configuration names no audio token")
        self.name = parts.name
        self.directions = parts.directions
        _leave_features_blank(parts.processor)
        self._prompt_maker = Frontend(parts.processor, parts.family, parts.name, parts.instruction, parts.directions)
        self.encode, self.decode = self._prompt_maker.encode, self._prompt_maker.decode
        self.audio_token_id = placeholder
        self.vocabulary_size = int(config.get_text_config().vocab_size)
        self.eos_ids = eos_ids(_generation_config(parts), parts.processor.tokenizer, parts.family.turn_end)
        self.eos_id = self.eos_ids[0]
        self.max_target_tokens: int | None = None
        self.client = VLLMClient(url, names[0], placeholder, self.eos_ids, os.environ.get(KEY, ""), self.vocabulary_size)
        server = self.client.use(names)
        self._context = server.contexts[self.client.model]
        self.max_samples = longest_clip(parts.family, config, parts.processor)
        if self._context < (context_tokens(config) or 0):
            self.max_samples = min(self.max_samples, self._fitting(parts.family.tokens_per_s))
        self._prompt = functools.lru_cache(_PROMPTS)(self._prompt_of_length)
        self.exact = number_format == "float32"
        self.approximate = "" if self._rules_out_placeholder() else UNMASKED
        self.signature = f"{parts.content}+vllm-{server.version}+{number_format}{'+approximate' if self.approximate else ''}"

    def check(self) -> None:
        """Check whether answers depend on the batch. Raises `LALMError` for a model that does not hear."""
        try:
            preflight(self, self.directions[0] if self.directions else ENGLISH_TO_GERMAN)
        except InexactError as error:
            if not self.exact:
                raise
            logger.warning("%s; treated as inexact, like half precision", error)
            self.exact = False

    def warm_up(self, direction: Direction, rows: int, samples: int) -> None:
        """Do nothing: the server did its one-time work when it started."""

    def hear(self, audios: Sequence[np.ndarray], directions: Sequence[Direction]) -> list[SentClip]:
        """Prepare each clip for sending, with the prompt that asks for its translation (see `LALM.hear`)."""
        check_lengths(audios, self.max_samples)
        return [self._sent(*row) for row in zip(audios, directions, strict=True)]

    def score(self, heard: Sequence[SentClip], targets: Sequence[Sequence[int]]) -> list[TokenScores]:
        """Score every target token given the audio and the tokens before it; all rows are sent at once."""
        requests = [
            Request([*clip.prompt, *target], clip.audio, max_tokens=1, scored=len(target))
            for clip, target in zip(heard, targets, strict=True)
        ]
        return [TokenScores(answer.prompt_log_probs, answer.prompt_ranks) for answer in self.client.generate(requests)]

    def continue_(
        self,
        heard: Sequence[SentClip],
        prefixes: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]] | None = None,
        want: Want = TOKENS_ONLY,
    ) -> list[Continuation]:
        """Continue each prefix greedily to EOS; all rows are sent at once. Drafts are not needed (see `LALM.continue_`)."""
        if want.heads is not None:
            raise LALMError(
                f"{self.name}: vLLM does not return attention, which the policy alignatt needs; choose rollback, "
                "local-agreement, wait-k, confidence or eos"
            )
        limits = [
            token_limit(clip.samples, len(clip.prompt), self._context, self.max_target_tokens) - len(prefix)
            for clip, prefix in zip(heard, prefixes, strict=True)
        ]
        rows = [row for row, limit in enumerate(limits) if limit > 0]
        requests = [Request([*heard[row].prompt, *prefixes[row]], heard[row].audio, limits[row]) for row in rows]
        answers = dict(zip(rows, self.client.generate(requests), strict=True))
        said = []
        for row, limit in enumerate(limits):
            tokens = answers[row].tokens if row in answers else []
            log_probs = answers[row].log_probs if row in answers else np.zeros(0, np.float32)
            count = next((place for place, token in enumerate(tokens) if token in self.eos_ids), len(tokens))
            truncated = count == max(limit, 0)
            said.append(Continuation(tokens[:count], truncated, log_probs[:count] if want.log_probs else None))
        return said

    def _sent(self, audio: np.ndarray, direction: Direction) -> SentClip:
        heard = audio if len(audio) >= MIN_SAMPLES else np.pad(audio, (0, MIN_SAMPLES - len(audio)))
        prompt = self._prompt(direction, len(heard))
        # vLLM refuses audio shorter than a token; a model in this process, too, reads a prompt without audio then
        return SentClip(prompt, encode_audio(heard) if self.audio_token_id in prompt else "", len(audio))

    def _prompt_of_length(self, direction: Direction, samples: int) -> tuple[int, ...]:
        """The prompt of any clip of this length; the content of the audio does not affect it."""
        return tuple(self._prompt_maker.prepare(np.zeros(samples, np.float32), direction).prompt)

    def _fitting(self, tokens_per_s: float) -> int:
        """How many samples fit into the server's context, leaving room for instruction and translation."""
        samples = int((self._context - LEAST_TOKENS) / tokens_per_s * SAMPLE_RATE)
        if samples < SAMPLE_RATE:
            raise VLLMError(
                f"{self.client.url}: its context of {self._context} tokens has no room for a second of audio and "
                f"{LEAST_TOKENS} tokens of text; start vLLM with a larger --max-model-len"
            )
        return samples

    def _rules_out_placeholder(self) -> bool:
        """Whether the server cannot generate the placeholder, however likely it is made."""
        if self.audio_token_id >= self.vocabulary_size:
            return True
        clip = self._sent(np.zeros(SAMPLE_RATE, np.float32), ENGLISH_TO_GERMAN)
        (answer,) = self.client.generate([Request(clip.prompt, clip.audio, 1, bias={self.audio_token_id: _CERTAIN})])
        return answer.tokens[0] != self.audio_token_id


def on_engine(parts: Parts, url: str, names: Sequence[str], dtype: str) -> EngineLALM:
    """The model whose weights the server at `url` has under one of `names`; checked.

    `dtype` is what the server was started with, `auto` for vLLM's default.
    """
    lalm = EngineLALM(parts, url, names, _default_format(parts.config) if dtype == "auto" else dtype)
    lalm.check()
    return lalm


def _leave_features_blank(processor: Any) -> None:
    """Keep a Whisper front end from computing spectrograms: only their length is needed, and they take most of the time."""
    extractor = extractor_of(processor)

    def blank(waveform: np.ndarray, device: str) -> np.ndarray:  # noqa: ARG001  # transformers passes it
        return np.zeros((*waveform.shape[:-1], extractor.feature_size, waveform.shape[-1] // extractor.hop_length), np.float32)

    extractor._torch_extract_fbank_features = blank


def _default_format(config: Any) -> str:
    """The number format vLLM computes in by default: that of the files, but never float32."""
    stored = str(getattr(config, "dtype", None) or config.get_text_config().dtype or "float32").removeprefix("torch.")
    return "bfloat16" if stored == "float32" else stored


def _generation_config(parts: Parts) -> Any:
    from transformers import GenerationConfig

    with errors_about(parts.name):
        try:
            return GenerationConfig.from_pretrained(parts.source, **parts.version)
        except OSError:  # there is no such file; transformers handles this in the same way when it loads a model
            return GenerationConfig.from_model_config(parts.config)

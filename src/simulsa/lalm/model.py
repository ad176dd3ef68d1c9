"""The LALM for Hugging Face transformers: one code path for every family in `families`.

The committed translation is appended to the generation prompt as token ids, which is exact for every chat template; text is
never tokenised again.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.batching import equally_shaped, padded
from simulsa.lalm.costs import DECODER_ON_CPU, ENCODER_ON_CPU, ONE_PASS, PassCost, measured
from simulsa.lalm.decoder import Decoder, HeardClip
from simulsa.lalm.decoding import HEAD_POSITIONS, Row, decode
from simulsa.lalm.device import copied, set_up
from simulsa.lalm.endings import eos_ids, token_limit
from simulsa.lalm.families import audio_token_id, context_tokens, family_of, longest_clip
from simulsa.lalm.features import BatchFrontend
from simulsa.lalm.frontend import MIN_SAMPLES, Frontend, PreparedClip, check_lengths
from simulsa.lalm.graphs import StaticSteps
from simulsa.lalm.grouping import grouped
from simulsa.lalm.interface import TOKENS_ONLY, Continuation, TokenScores, Want
from simulsa.lalm.preflight import ENGLISH_TO_GERMAN
from simulsa.lalm.signature import marks
from simulsa.lalm.window import longer, trimmed_window
from simulsa.languages import Direction

EXPECTED_TOKENS_PER_S = 6  # of a translation, per second of speech

logger = logging.getLogger("simulsa")


class HuggingFaceLALM:
    """A transformers audio-language model with its processor; implements `LALM`.

    `model` may carry LoRA adapters (a `PeftModel`) or have them merged into its weights; it makes no difference here.
    `instruction` is the user's own template (see `instructions`). `directions` are those that the model was trained on, if they
    are known, the most frequent first. The signature is `content`, which is `name@digits`, with the `marks` of how the weights
    were loaded. `max_target_tokens` limits translations further than `token_limit` does by itself. Raises `LALMError` for a
    model without a backbone, output head or audio token where other models have it.
    """

    approximate = ""

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        content: str,
        instruction: str = "",
        directions: Sequence[Direction] = (),
    ) -> None:
        self.model = model.eval()
        self.has_adapter = False  # on another model; training must start from that model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.name = name
        self.content = content
        self.max_target_tokens: int | None = None
        self.directions = tuple(directions)
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.family = family_of(whole.config)
        self.frontend = Frontend(processor, self.family, name, instruction, self.directions)
        self.encode, self.decode = self.frontend.encode, self.frontend.decode
        self.decoder = Decoder(whole, name, audio_token_id(whole.config))
        set_up(self.device)
        if self.device.type == "cuda" and self.family.graphs:
            self.decoder.steps = StaticSteps(self.decoder, graphs=True)
        self.batch_frontend = BatchFrontend(self.frontend, self.device) if self.family.whisper_window else None
        self.audio_token_id = self.decoder.audio_token_id
        self.vocabulary_size = self.decoder.vocabulary_size
        self.encoder = self.decoder.backbone.audio_tower if self.family.whisper_window else None
        self.eos_ids = eos_ids(whole.generation_config, self.tokenizer, self.family.turn_end)
        self.eos_id = self.eos_ids[0]
        self.max_samples = longest_clip(self.family, whole.config, processor)
        self._context = context_tokens(whole.config)
        self._rounded = bool(getattr(whole, "is_loaded_in_4bit", False))
        self.signature = content + marks(str(self.dtype).removeprefix("torch."), self._rounded)

    def carrying(
        self, model: Any, name: str, content: str, directions: Sequence[Direction] = (), instruction: str = ""
    ) -> HuggingFaceLALM:
        """The same with `model`, which has an adapter trained on `directions`; prompted with `instruction` if given."""
        adapted = HuggingFaceLALM(model, self.processor, name, content, instruction or self.instruction, directions)
        adapted.max_target_tokens = self.max_target_tokens
        adapted.has_adapter = True
        return adapted

    @property
    def instruction(self) -> str:
        """The user's own template; empty if there is none."""
        return self.frontend.instruction

    @property
    def exact(self) -> bool:
        """Whether equal inputs give equal tokens whatever the batch."""
        return self.dtype == torch.float32 and not self._rounded

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return self.decoder.device

    @property
    def dtype(self) -> torch.dtype:
        """The model's number format."""
        return self.decoder.dtype

    def token_limit(self, clip: HeardClip) -> int:
        """The most tokens that a translation of the clip can have, its prefix included (see `Continuation`)."""
        return token_limit(clip.samples, len(clip), self._context, self.max_target_tokens)

    def hear(self, audios: Sequence[np.ndarray | PreparedClip], directions: Sequence[Direction]) -> list[HeardClip]:
        """Encode each clip with the prompt that asks for its translation (see `LALM.hear`).

        Some may have been prepared by the `frontend` already, for these directions.
        """
        check_lengths(audios, self.max_samples)
        return self.listen(self._prepared(audios, directions))

    def _prepared(self, audios: Sequence[np.ndarray | PreparedClip], directions: Sequence[Direction]) -> list[PreparedClip]:
        """All clips, prepared: the new ones together if the family allows it, or else one by one."""
        raw = {
            row: (audio, asked)
            for row, (audio, asked) in enumerate(zip(audios, directions, strict=True))
            if not isinstance(audio, PreparedClip)
        }
        if raw and self.batch_frontend is not None:
            fresh = self.batch_frontend.prepare(*zip(*raw.values(), strict=True))
        else:
            fresh = [self.frontend.prepare(audio, asked) for audio, asked in raw.values()]
        found = dict(zip(raw, fresh, strict=True))
        return [audio if isinstance(audio, PreparedClip) else found[row] for row, audio in enumerate(audios)]

    @torch.no_grad()
    def listen(self, clips: Sequence[PreparedClip]) -> list[HeardClip]:
        """`hear` for clips that the frontend has prepared. The encoder is frozen: no gradients reach it."""
        heard: dict[int, HeardClip] = {}
        for rows in self._encoder_passes(clips):
            heard |= zip(rows, self._listen_at_once([clips[row] for row in rows]), strict=True)
        return [heard[row] for row in range(len(clips))]

    def _encoder_passes(self, clips: Sequence[PreparedClip]) -> list[list[int]]:
        """Which clips are encoded together: equally long ones if lengths affect each other, else by the cost of padding."""
        if self.family.mixes_lengths:
            return equally_shaped([clip.features for clip in clips])
        if not self.family.whisper_window or len({clip.samples for clip in clips}) < 2:
            return [list(range(len(clips)))]
        return grouped([clip.samples for clip in clips], self.encoder_cost)

    def _listen_at_once(self, clips: Sequence[PreparedClip]) -> list[HeardClip]:
        features = padded([clip.features for clip in clips])
        trimmed: AbstractContextManager[None] = nullcontext()
        if self.encoder is not None:
            features = longer(features, self.decoder.round_up, self.encoder.config.max_source_positions)
            trimmed = trimmed_window(self.encoder, features["input_features"].shape[-1])
        with trimmed:
            embeddings = self.decoder.embed([clip.prompt for clip in clips], self.moved(features))
        return [HeardClip(own, self._frames(clip), clip.samples) for own, clip in zip(embeddings, clips, strict=True)]

    def moved(self, features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A clip's or a batch's features on the model's device, in its number format."""
        there = {name: copied(tensor, self.device) for name, tensor in features.items()}
        return {name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for name, tensor in there.items()}

    def _frames(self, clip: PreparedClip) -> torch.Tensor:
        """Positions in the prompt of the audio tokens that stand for the clip; others stand for the silence after it."""
        places = [place for place, token in enumerate(clip.prompt) if token == self.audio_token_id]
        if self.family.fills_window:
            seconds = max(clip.samples, MIN_SAMPLES) / SAMPLE_RATE
            places = places[: math.ceil(seconds * self.family.tokens_per_s)]
        return copied(torch.tensor(places, dtype=torch.long), self.device)

    def forward(self, heard: Sequence[HeardClip], tails: Sequence[Sequence[int]]) -> torch.Tensor:
        """Last hidden states `[rows, length, width]` of prompts followed by token ids; rows end at the same position.

        Gradients are kept.
        """
        hidden, _ = self.decoder.forward(*self.decoder.batch(heard, tails))
        return hidden

    @torch.no_grad()
    def score(self, heard: Sequence[HeardClip], targets: Sequence[Sequence[int]]) -> list[TokenScores]:
        """Score every target token given the audio and the tokens before it, in one forward pass for the batch."""
        hidden = self.forward(heard, targets)
        # the logits at position i predict token i + 1; rows end with their target
        states = torch.cat([row[len(row) - len(target) - 1 : -1] for row, target in zip(hidden, targets, strict=True)])
        gold = torch.tensor([token for target in targets for token in target], device=states.device, dtype=torch.long)
        log_probs, ranks = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.int64)]
        for some, tokens in zip(torch.split(states, HEAD_POSITIONS), torch.split(gold, HEAD_POSITIONS), strict=True):
            logits = self.decoder.logits(some)
            chosen = logits.gather(1, tokens[:, None])
            log_probs.append((chosen - logits.logsumexp(1, keepdim=True)).squeeze(1).cpu().numpy())
            ranks.append((logits > chosen).sum(1).cpu().numpy())
        ends = np.cumsum([len(target) for target in targets])[:-1]
        of_rows = zip(np.split(np.concatenate(log_probs), ends), np.split(np.concatenate(ranks), ends), strict=True)
        return [TokenScores(*row) for row in of_rows]

    @torch.no_grad()
    def continue_(
        self,
        heard: Sequence[HeardClip],
        prefixes: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[int]] | None = None,
        want: Want = TOKENS_ONLY,
    ) -> list[Continuation]:
        """Continue each prefix greedily to EOS; a draft is verified in one forward pass (see `LALM.continue_`)."""
        guesses = [[] for _ in heard] if drafts is None else drafts
        rows = [
            Row(clip, prefix, draft, self.token_limit(clip) - len(prefix))
            for clip, prefix, draft in zip(heard, prefixes, guesses, strict=True)
        ]
        return decode(self.decoder, rows, self._decoder_passes(rows), self.eos_ids, want, self.name)

    def _decoder_passes(self, rows: Sequence[Row]) -> list[list[int]]:
        """Which rows are prefilled in one pass: all, unless their padding costs more than additional passes."""
        lengths = [self.decoder.round_up(len(row.heard) + len(row.prefix) + len(row.draft)) for row in rows]
        if self.decoder.slides or len(set(lengths)) < 2:
            return [list(range(len(rows)))]
        return grouped(lengths, self.decoder_cost)

    @functools.cached_property
    def encoder_cost(self) -> PassCost:
        """What an encoder pass costs, in samples; with CUDA, measured on first use."""
        if self.device.type != "cuda":
            return ENCODER_ON_CPU if self.device.type == "cpu" else ONE_PASS
        second = self.frontend.prepare(np.zeros(SAMPLE_RATE, dtype=np.float32), self._usual_direction)
        return measured(lambda length: self._listen_at_once([second] * (length // SAMPLE_RATE)), "encoder", SAMPLE_RATE)

    @functools.cached_property
    def decoder_cost(self) -> PassCost:
        """What a prefill costs, in tokens; with CUDA, measured on first use."""
        if self.device.type != "cuda":
            return DECODER_ON_CPU if self.device.type == "cpu" else ONE_PASS
        (row,) = self.listen([self.frontend.prepare(np.zeros(10 * SAMPLE_RATE, dtype=np.float32), self._usual_direction)])

        def prefill(tokens: int) -> None:
            rows = [row] * (tokens // len(row))
            self.decoder.forward(*self.decoder.batch(rows, [[] for _ in rows]), use_cache=True)

        return measured(prefill, "decoder", len(row))

    @property
    def _usual_direction(self) -> Direction:
        return self.directions[0] if self.directions else ENGLISH_TO_GERMAN

    @torch.no_grad()
    def warm_up(self, direction: Direction, rows: int, samples: int) -> None:
        """Do a GPU's one-time work before the first client has to wait for it: for up to `rows` streams and clips of `samples`.

        Pass costs are measured and decoding steps captured. On a CPU, there is nothing to do.
        """
        if self.device.type != "cuda" and self.decoder.steps is None:
            return
        samples = min(samples, self.max_samples)
        clip, _ = self.hear([np.zeros(length, dtype=np.float32) for length in (samples, samples // 2)], [direction] * 2)
        _, cache = self.decoder.forward(*self.decoder.batch([clip], [[]]), use_cache=True)
        if rows > 1 and not self.decoder.slides:
            logger.debug("a prefill costs %s", self.decoder_cost)  # measured on this first use
        if self.decoder.steps is not None:
            self.decoder.steps.prepare(cache, rows, len(clip) + math.ceil(EXPECTED_TOKENS_PER_S * samples / SAMPLE_RATE))

"""The text side of a transformers model: token ids and encoded audio to embeddings, hidden states and logits."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from simulsa.lalm.device import copied, rounding
from simulsa.lalm.graphs import StaticSteps
from simulsa.lalm.interface import LALMError

Embeddings = dict[str, torch.Tensor]
"""What the language model takes instead of token ids: `inputs_embeds` `[..., width]`, and in some families
`per_layer_inputs` `[..., layers, width]`."""

_EMBEDDINGS = ("inputs_embeds", "per_layer_inputs")


@dataclass(frozen=True)
class HeardClip:
    """A prompt with its audio, as input of the language model: the embeddings `[tokens, ...]` of one row.

    `frames` are the positions of the audio tokens in the prompt, without those that only stand for silence after the clip. The
    clip has `samples` at `SAMPLE_RATE`.
    """

    embeddings: Embeddings
    frames: torch.Tensor
    samples: int

    def __len__(self) -> int:
        return len(self.embeddings["inputs_embeds"])

    @property
    def nbytes(self) -> int:
        """The memory of the embeddings."""
        return sum(tensor.nbytes for tensor in self.embeddings.values())

    def detached(self) -> HeardClip:
        """A copy in its own memory: a row of a batch keeps the whole batch alive."""
        return HeardClip({name: tensor.clone() for name, tensor in self.embeddings.items()}, self.frames, self.samples)


class Decoder:
    """The language model of a multimodal model, with its output head.

    Rows of a batch are padded on the left, so that all of them end at the same position. Raises `LALMError` for a model without
    a backbone, output head or audio token where other models have it.
    """

    def __init__(self, whole: Any, name: str, audio_token_id: int | None) -> None:
        backbone, head = getattr(whole, "model", None), whole.get_output_embeddings()
        if backbone is None or head is None or audio_token_id is None:
            raise LALMError(
                f"{name}: a {type(whole).__name__} has no backbone, output head or audio token where other models have them"
            )
        self.backbone: Any = backbone  # everything below the output head
        self.head = head
        self.language_model: Any = getattr(backbone, "language_model", backbone)
        self.audio_token_id = audio_token_id
        self.vocabulary_size = int(head.weight.shape[0])
        parameters = inspect.signature(self.language_model.forward).parameters
        self.cache_name = "cache" if "cache" in parameters else "past_key_values"  # until transformers 5.23
        text = whole.config.get_text_config()
        self.slides = "sliding_attention" in (getattr(text, "layer_types", None) or ())
        self.round_up = rounding(self.device)
        self.steps: StaticSteps | None = None  # how tokens are decoded after a prefill; `None` for the plain way
        self._scaling = getattr(text, "logits_scaling", None)
        self._softcap = getattr(text, "final_logit_softcapping", None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The number format."""
        return self.head.weight.dtype  # type: ignore[no-any-return]

    def embed(self, rows: Sequence[Sequence[int]], audio: Mapping[str, torch.Tensor] | None = None) -> list[Embeddings]:
        """Embeddings `[tokens, ...]` of each row; placeholders are replaced by the encoder's output for the `audio` tensors.

        The model's own forward merges text and audio, in a different way in every family; it is stopped just before the
        language model runs.
        """
        longest = max(1, *map(len, rows))
        ids = copied(torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows]), self.device)
        mask = self._mask([len(row) for row in rows], longest)
        found: Embeddings = {}

        def stop(_: Any, arguments: tuple[torch.Tensor, ...], named: Mapping[str, Any]) -> None:
            found.update({name: named[name] for name in _EMBEDDINGS if named.get(name) is not None})
            if not found:  # a decoder layer takes the embeddings as its first argument
                found["inputs_embeds"] = arguments[0] if arguments else named["hidden_states"]
            raise _EmbeddedError

        nested = self.language_model is not self.backbone
        place = self.language_model if nested else self.backbone.layers[0]
        handle = place.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.backbone(input_ids=ids, attention_mask=mask, position_ids=_positions(mask), use_cache=False, **(audio or {}))
        except _EmbeddedError:
            pass
        finally:
            handle.remove()
        return [
            {name: tensor[row, tensor.shape[1] - len(tokens) :] for name, tensor in found.items()}
            for row, tokens in enumerate(rows)
        ]

    def batch(self, heard: Sequence[HeardClip], tails: Sequence[Sequence[int]]) -> tuple[Embeddings, torch.Tensor]:
        """Prompts followed by token ids, as one batch `[rows, length, ...]`, and its mask int64 `[rows, length]`.

        The length is that of the longest row, rounded up to the device's grid (see `device.on_grid`).
        """
        parts = [clip.embeddings for clip in heard]
        if any(tails):
            texts = self.embed(tails)
            parts = [
                {name: torch.cat([part[name], text[name]]) for name in part} for part, text in zip(parts, texts, strict=True)
            ]
        lengths = [len(clip) + len(tail) for clip, tail in zip(heard, tails, strict=True)]
        longest = self.round_up(max(lengths))
        embeddings = {name: _batched([part[name] for part in parts], longest) for name in parts[0]}
        return embeddings, self._mask(lengths, longest)

    def _mask(self, lengths: Sequence[int], longest: int) -> torch.Tensor:
        """The mask int64 `[rows, longest]` of rows that are padded on the left."""
        return copied(torch.tensor([[0] * (longest - length) + [1] * length for length in lengths]), self.device)

    def forward(self, embeddings: Embeddings, mask: torch.Tensor, use_cache: bool = False) -> tuple[torch.Tensor, Any]:
        """Last hidden states `[rows, length, width]` of one pass, and its KV cache if `use_cache`; gradients are kept."""
        result = self.language_model(attention_mask=mask, position_ids=_positions(mask), use_cache=use_cache, **embeddings)
        return result.last_hidden_state, getattr(result, self.cache_name) if use_cache else None

    def step(self, tokens: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
        """Hidden states `[rows, width]` of one more token per row: `tokens` int64 `[rows]`, which `mask` already includes."""
        result = self.language_model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=mask.sum(1, keepdim=True) - 1,
            use_cache=True,
            **{self.cache_name: cache},
        )
        return result.last_hidden_state[:, -1]  # type: ignore[no-any-return]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float32 logits with the audio placeholder masked, because it must never be generated."""
        logits = self.head(hidden).float()
        if self._scaling is not None:
            logits = logits / self._scaling
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        if self.audio_token_id < self.vocabulary_size:
            logits[..., self.audio_token_id] = -torch.inf
        return logits  # type: ignore[no-any-return]


class _EmbeddedError(Exception):
    """Stops the forward pass: the embeddings are known, and the rest need not be computed."""


def _batched(rows: Sequence[torch.Tensor], length: int) -> torch.Tensor:
    """Rows `[tokens, ...]`, padded on the left to `length`, as `[rows, length, ...]`."""
    batch = pad_sequence(list(rows), batch_first=True, padding_side="left")
    return pad(batch, (0, 0) * (batch.dim() - 2) + (length - batch.shape[1], 0))


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)

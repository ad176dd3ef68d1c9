"""Greedy decoding of a batch: drafts are verified in one pass, and the rest is decoded token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from simulsa.lalm.attention import Watch, watching
from simulsa.lalm.decoder import Decoder, HeardClip
from simulsa.lalm.grouping import joined_caches, joined_masks
from simulsa.lalm.interface import Continuation, Want

HEAD_POSITIONS = 512  # logits computed at a time: a vocabulary of 150,000 takes 600 kB per position


@dataclass
class Row:
    """A row of a batch during decoding: its prompt, and the tokens decoded so far, EOS included."""

    heard: HeardClip
    prefix: Sequence[int]
    draft: Sequence[int]
    limit: int
    """how many tokens may be decoded"""
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    attention: list[torch.Tensor] = field(default_factory=list)
    """of each token, float32 `[frames]`"""
    columns: torch.Tensor | None = None
    """positions of the audio's keys in the KV cache, int64 `[frames]`"""

    def add(self, choices: Sequence[tuple[int, float]]) -> None:
        """Append tokens with their log-probabilities."""
        self.tokens += [token for token, _ in choices]
        self.log_probs += [log_prob for _, log_prob in choices]

    def is_unfinished(self, eos_ids: Sequence[int]) -> bool:
        """Whether to decode another token."""
        return self.tokens[-1] not in eos_ids and len(self.tokens) < self.limit

    def continuation(self, eos_ids: Sequence[int], want: Want) -> Continuation:
        """The tokens up to EOS or the limit."""
        ends = [i for i, token in enumerate(self.tokens) if token in eos_ids]
        count = min([*ends, max(self.limit, 0)])
        log_probs = torch.tensor(self.log_probs[:count]).numpy() if want.log_probs else None
        attention = None
        if want.heads is not None:
            weights = self.attention[:count]
            attention = (torch.stack(weights) if weights else torch.zeros(0, len(self.heard.frames))).float().cpu().numpy()
        return Continuation(self.tokens[:count], count == max(self.limit, 0), log_probs, attention)


def decode(
    decoder: Decoder, rows: Sequence[Row], groups: Sequence[Sequence[int]], eos_ids: Sequence[int], want: Want, name: str
) -> list[Continuation]:
    """Continue all rows; the rows of a group share one pass over their prompts, prefixes and drafts."""
    with watching(decoder.language_model, None if decoder.slides else want.heads, name) as watch:
        greedy = _Greedy(decoder, eos_ids, want, watch)
        parts = [[rows[index] for index in group] for group in groups]
        masks, caches = zip(*map(greedy.verify, parts), strict=True)
        longest = max(mask.shape[1] for mask in masks)
        for part, mask in zip(parts, masks, strict=True):
            for row in part:
                if row.columns is not None:  # joining moves the keys of shorter passes to the right
                    row.columns = row.columns + (longest - mask.shape[1])
        greedy.decode_rest([row for part in parts for row in part], joined_masks(masks), joined_caches(caches))
    if decoder.slides and want.heads is not None:
        _attend_again(decoder, rows, want, name)
    return [row.continuation(eos_ids, want) for row in rows]


@dataclass
class _Greedy:
    decoder: Decoder
    eos_ids: Sequence[int]
    want: Want
    watch: Watch | None

    def verify(self, rows: Sequence[Row]) -> tuple[torch.Tensor, Any]:
        """Accept from each draft the tokens that the model would choose, add its own next one, and return mask and KV cache."""
        embeddings, mask = self.decoder.batch([row.heard for row in rows], [[*row.prefix, *row.draft] for row in rows])
        length = mask.shape[1]
        if self.watch is not None:
            self.watch.queries = 1 + max(len(row.draft) for row in rows)
        hidden, cache = self.decoder.forward(embeddings, mask, use_cache=True)
        weights = self.watch.take() if self.watch is not None else None
        # the logits at each draft position, and at the one before the draft, predict the next token
        counts = [len(row.draft) + 1 for row in rows]
        choices = self._choose(torch.cat([states[length - count :] for states, count in zip(hidden, counts, strict=True)]))
        rejected = False
        for number, (row, count) in enumerate(zip(rows, counts, strict=True)):
            own, choices = choices[:count], choices[count:]
            accepted = _agreeing(row.draft, [token for token, _ in own])
            if accepted < len(row.draft):  # the rejected tokens stay in the KV cache, masked
                mask[number, length - (len(row.draft) - accepted) :] = 0
                rejected = True
            row.add(own[: accepted + 1])
            if weights is not None:
                row.columns = row.heard.frames + (length - len(row.heard) - len(row.prefix) - len(row.draft))
                row.attention += list(weights[number, -count:][: accepted + 1, row.columns])
        if rejected and self.decoder.slides:  # even masked, they would push older tokens out of the attention window
            tails = [[*row.prefix, *row.tokens[:-1]] for row in rows]
            embeddings, mask = self.decoder.batch([row.heard for row in rows], tails)
            _, cache = self.decoder.forward(embeddings, mask, use_cache=True)
        return mask, cache

    def decode_rest(self, rows: Sequence[Row], mask: torch.Tensor, cache: Any) -> None:
        """Decode all rows that have not ended, one token per step; rows that end leave the batch."""
        active = list(rows)
        if self.decoder.steps is not None and self.watch is None:
            active, mask, cache = self.decoder.steps.decode_rest(active, mask, cache, self.eos_ids)
        if self.watch is not None:
            self.watch.queries = 1
        while going := [number for number, row in enumerate(active) if row.is_unfinished(self.eos_ids)]:
            if len(going) < len(active):
                chosen = torch.tensor(going, device=mask.device)
                cache.batch_select_indices(chosen)
                mask = mask[chosen]
                active = [active[number] for number in going]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            last = torch.tensor([row.tokens[-1] for row in active], device=mask.device)
            hidden = self.decoder.step(last, mask, cache)
            weights = self.watch.take() if self.watch is not None else None
            for number, (row, choice) in enumerate(zip(active, self._choose(hidden), strict=True)):
                row.add([choice])
                if weights is not None:
                    row.attention.append(weights[number, 0, row.columns])

    def _choose(self, hidden: torch.Tensor) -> list[tuple[int, float]]:
        """The most likely token after each of the hidden states `[positions, width]`, and its log-probability if wanted."""
        chosen: list[tuple[int, float]] = []
        for states in torch.split(hidden, HEAD_POSITIONS):
            logits = self.decoder.logits(states)
            tokens = logits.argmax(-1)
            if self.want.log_probs:
                best = logits.gather(-1, tokens[:, None]).squeeze(-1)
                log_probs = (best - logits.logsumexp(-1)).tolist()
            else:
                log_probs = [0.0] * len(tokens)
            chosen += zip(tokens.tolist(), log_probs, strict=True)
        return chosen


def _attend_again(decoder: Decoder, rows: Sequence[Row], want: Want, name: str) -> None:
    """Compute the attention of all tokens in one more pass: a sliding cache no longer has the keys of the audio."""
    embeddings, mask = decoder.batch([row.heard for row in rows], [[*row.prefix, *row.tokens[:-1]] for row in rows])
    with watching(decoder.language_model, want.heads, name) as watch:
        assert watch is not None
        watch.queries = max(len(row.tokens) for row in rows)
        decoder.forward(embeddings, mask)
        weights = watch.take()
    for row, own in zip(rows, weights, strict=True):
        columns = row.heard.frames + (mask.shape[1] - len(row.heard) - len(row.prefix) - len(row.tokens) + 1)
        row.attention = list(own[-len(row.tokens) :, columns])


def _agreeing(draft: Sequence[int], choices: Sequence[int]) -> int:
    """How many leading tokens of a draft the model would have chosen itself."""
    for i, (guess, choice) in enumerate(zip(draft, choices, strict=False)):
        if guess != choice:
            return i
    return len(draft)

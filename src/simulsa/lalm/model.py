"""The LALM of Hugging Face transformers: `score` and `continue_` for every family of `families`, by one path.

Rows of a batch are padded on the left, so that all of them end at the same position. The committed translation is appended as
token ids behind the generation prompt, which is exact for every chat template; text is never tokenised again.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from simulsa.audio import SAMPLE_RATE
from simulsa.lalm.apart import equal_lengths, run_apart, stacked
from simulsa.lalm.attention import watching
from simulsa.lalm.families import audio_token_id, audio_tokens, context_tokens, extractor_of, family_of, longest_clip
from simulsa.lalm.grouping import grouped, joined_caches, joined_masks
from simulsa.lalm.instructions import instruction
from simulsa.lalm.interface import ALL_HEADS, Direction, Heads, LALMError, TokenScores
from simulsa.lalm.memory import recalling
from simulsa.lalm.signature import marks
from simulsa.lalm.window import narrowed, padded_samples
from simulsa.languages import base_language, language_name
from simulsa.manifest import too_long

MIN_SAMPLES = SAMPLE_RATE // 25  # 40 ms: shorter clips crash some feature extractors, so they are padded with silence
# more than any speech takes, even where a letter is several tokens: a model that says more repeats itself, and would go on to the
# end of its context
LEAST_TOKENS, TOKENS_PER_S = 256, 32
_PROMPT_TOKENS = 64  # of the context: the instruction and what the chat template puts around it
PASS_SAMPLES = 8 * SAMPLE_RATE  # one more pass over the audio costs a CPU as much as so much padding does (measured)
_OF_PICTURES = "token_type_ids"  # how the names of masks end that mark the tokens of pictures; there are none

logger = logging.getLogger("simulsa")


@dataclass
class Inputs:
    """A left-padded batch: `ids` and `mask` int64 `[batch, length]`, and the processor's audio tensors by name."""

    ids: torch.Tensor
    mask: torch.Tensor
    audio: dict[str, torch.Tensor]


class HuggingFaceLALM:
    """An audio-language model of transformers with its processor; implements `LALM`.

    `model` may carry LoRA adapters (a `PeftModel`): they are inserted in place, so nothing here needs to know. `instruction` is
    the user's own template (see `instructions`), `directions` are those that the model was trained on, where that is known, the
    most frequent first. The signature is `content`, which is `name@digits`, with the `marks` of how the weights were loaded.
    `max_target_tokens` bounds translations further than `token_limit` does of itself. Raises `LALMError` for a model whose parts
    are not where they should be.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str,
        content: str,
        max_target_tokens: int | None = None,
        instruction: str = "",
        directions: Sequence[Direction] = (),
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.name = name
        self.content = content
        self.max_target_tokens = max_target_tokens
        self.instruction = instruction
        self.directions = tuple(directions)
        whole = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.family = family_of(whole.config)
        self._backbone: Any = getattr(whole, "model", None)  # everything below the language-model head
        self._head = whole.get_output_embeddings()
        audio_token = audio_token_id(whole.config)
        if self._backbone is None or self._head is None or audio_token is None:
            raise LALMError(f"{name}: a {type(whole).__name__} has no backbone, output head or audio token where others have it")
        self.tower = self._backbone.audio_tower if self.family.whisper_window else None
        self.audio_token_id = audio_token
        text = whole.config.get_text_config()
        self._scaling = getattr(text, "logits_scaling", None)
        self._softcap = getattr(text, "final_logit_softcapping", None)
        self._slides = "sliding_attention" in (getattr(text, "layer_types", None) or ())
        self.eos_ids = _eos_ids(whole.generation_config, self.tokenizer, self.family.turn_end)
        self.eos_id = self.eos_ids[0]
        pad = self.tokenizer.pad_token_id
        self._pad_id = self.eos_id if pad is None else int(pad)
        self.vocabulary_size = int(self._head.weight.shape[0])
        self.max_samples = longest_clip(self.family, whole.config, processor)
        self._context = context_tokens(whole.config)
        self._rounded = bool(getattr(whole, "is_loaded_in_4bit", False))
        self.signature = content + marks(str(self.dtype).removeprefix("torch."), self._rounded)
        self._strange: set[str | Direction] = set()  # languages and directions that were warned of

    def carrying(self, model: Any, name: str, content: str, directions: Sequence[Direction] = ()) -> HuggingFaceLALM:
        """The same with an adapter: `model` in place of this one's, trained on `directions`."""
        return HuggingFaceLALM(model, self.processor, name, content, self.max_target_tokens, self.instruction, directions)

    @property
    def exact(self) -> bool:
        """Whether equal inputs give equal tokens whatever the batch."""
        return self.dtype == torch.float32 and not self._rounded

    @property
    def device(self) -> torch.device:
        """Where the model's weights lie."""
        return self._head.weight.device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """The model's number format."""
        return self._head.weight.dtype  # type: ignore[no-any-return]

    def token_limit(self, samples: int) -> int:
        """The most tokens that a translation of `samples` of audio can have, its prefix included (see `LALM.token_limit`)."""
        limit = LEAST_TOKENS + math.ceil(TOKENS_PER_S * samples / SAMPLE_RATE)
        if self._context is not None:
            heard = audio_tokens(self.family, self.processor, max(samples, MIN_SAMPLES))
            limit = min(limit, self._context - heard - _PROMPT_TOKENS)
        return max(1, limit if self.max_target_tokens is None else min(limit, self.max_target_tokens))

    def encode(self, text: str) -> list[int]:
        """Text to target token ids, without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Target token ids to text, special tokens left out; an incomplete character decodes to U+FFFD."""
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def prompts(
        self, audios: Sequence[np.ndarray], directions: Sequence[Direction]
    ) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
        """Token ids of each prompt, unpadded, up to where the answer begins; and the batch's audio tensors.

        Raises `LALMError` for a clip that is longer than the model's window.
        """
        self._check(audios)
        self._warn_of_languages(directions)
        self._warn_of_directions(directions)
        conversations = [
            [{"role": "user", "content": [
                self.family.audio_content(_at_least(audio, MIN_SAMPLES)),
                {"type": "text", "text": instruction(direction, self.family.name, self.instruction)},
            ]}]
            for audio, direction in zip(audios, directions, strict=True)
        ]  # fmt: skip
        if self.family.mixes_lengths:
            clips = [self._process([conversation], {}) for conversation in conversations]
            return [row for rows, _ in clips for row in rows], stacked([audio for _, audio in clips])
        longest = max([MIN_SAMPLES, *(len(audio) for audio in audios)])
        padding = {"max_length": padded_samples(longest, extractor_of(self.processor))} if self.family.pads_to_window else {}
        return self._process(conversations, padding)

    def _check(self, audios: Sequence[np.ndarray]) -> None:
        for number, audio in enumerate(audios):
            if len(audio) > self.max_samples:
                raise LALMError(too_long(f"clip {number} of the batch", len(audio), self.max_samples))

    def _process(
        self, conversations: list[Any], audio_options: dict[str, Any]
    ) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
        """The processor's unpadded token ids and its audio tensors."""
        batch = self.processor.apply_chat_template(
            conversations,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={
                "text_kwargs": {"padding": True, "padding_side": "left"},
                **({"audio_kwargs": audio_options} if audio_options else {}),
            },
        )
        ids, mask = batch.pop("input_ids"), batch.pop("attention_mask")
        rows = [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]
        return rows, {name: self._move(tensor) for name, tensor in batch.items() if not name.endswith(_OF_PICTURES)}

    def _warn_of_languages(self, directions: Sequence[Direction]) -> None:
        """Say once of each language that the family's card does not list it."""
        if not self.family.languages:
            return
        spoken = {base_language(direction.source_lang) for direction in directions}
        for code in sorted(spoken - self.family.languages - self._strange):
            known = ", ".join(sorted(map(language_name, self.family.languages)))
            logger.warning("%s: %s does not list %s speech (%s)", self.name, self.family.name, language_name(code), known)
            self._strange.add(code)

    def _warn_of_directions(self, directions: Sequence[Direction]) -> None:
        """Say once of each direction that the model was trained on others."""
        if not self.directions:
            return
        trained = {_languages(direction) for direction in self.directions}
        for source, target in sorted({_languages(direction) for direction in directions} - trained):
            if (direction := Direction(source, target)) not in self._strange:
                known = ", ".join(map(_in_words, dict.fromkeys(self.directions)))
                logger.warning("%s was not trained on %s, but on %s", self.name, _in_words(direction), known)
                self._strange.add(direction)

    @torch.inference_mode()
    def score(
        self, audios: Sequence[np.ndarray], targets: Sequence[Sequence[int]], directions: Sequence[Direction]
    ) -> list[TokenScores]:
        """Score every target token given its audio and the tokens before it, in one forward pass for the batch."""
        prompts, audio = self.prompts(audios, directions)
        inputs = self.pad([prompt + list(target) for prompt, target in zip(prompts, targets, strict=True)], audio)
        hidden, _ = self.forward(inputs)
        scores = []
        for row, target in zip(hidden, targets, strict=True):
            # the logits at position i are about token i + 1; rows end with their target
            logits = self.logits(row[len(row) - len(target) - 1 : -1])
            gold = torch.tensor(list(target), device=logits.device, dtype=torch.long)
            chosen = logits.gather(1, gold[:, None])
            log_probs = (chosen - logits.logsumexp(1, keepdim=True)).squeeze(1)
            ranks = (logits > chosen).sum(1)
            scores.append(TokenScores(log_probs.float().cpu().numpy(), ranks.cpu().numpy()))
        return scores

    @torch.inference_mode()
    def attend(
        self,
        audios: Sequence[np.ndarray],
        targets: Sequence[Sequence[int]],
        directions: Sequence[Direction],
        heads: Heads = ALL_HEADS,
    ) -> list[np.ndarray]:
        """How much each target token attends to each audio token of its clip (see `LALM.attend`)."""
        prompts, audio = self.prompts(audios, directions)
        inputs = self.pad([prompt + list(target) for prompt, target in zip(prompts, targets, strict=True)], audio)
        everything = list(range(len(audios)))
        groups = equal_lengths(audio) if self.family.mixes_lengths else [(everything, audio)]
        attentions = {}
        for rows, part in groups:
            with watching(self._backbone, heads, self.name) as watch:
                self._run(inputs.ids[rows], inputs.mask[rows], part, use_cache=False)
            weights = watch.mean()
            for row, weight in zip(rows, weights, strict=True):
                # as with logits, the position before a token is the one that says it
                said = weight[len(weight) - len(targets[row]) - 1 : -1]
                heard = said[:, inputs.ids[row] == self.audio_token_id]
                attentions[row] = heard[:, : self._frames(heard.shape[1], len(audios[row]))].cpu().numpy()
        return [attentions[row] for row in everything]

    def _frames(self, tokens: int, samples: int) -> int:
        """How many of a clip's audio tokens stand for its `samples`; the others are the silence behind it."""
        if not self.family.fills_window:
            return tokens
        return min(tokens, math.ceil(max(samples, MIN_SAMPLES) / SAMPLE_RATE * self.family.tokens_per_s))

    @torch.inference_mode()
    def continue_(
        self,
        audios: Sequence[np.ndarray],
        prefixes: Sequence[Sequence[int]],
        directions: Sequence[Direction],
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> list[list[int]]:
        """Continue each prefix greedily to EOS; a draft is verified in one forward pass (see `LALM.continue_`)."""
        self._check(audios)
        guesses = [[] for _ in audios] if drafts is None else drafts
        requests = list(zip(audios, prefixes, directions, guesses, strict=True))
        groups = self._groups(audios)
        parts = [self._verify(*zip(*[requests[row] for row in rows], strict=True)) for rows in groups]
        order = [row for rows in groups for row in rows]
        limits = [self.token_limit(len(audios[row])) - len(prefixes[row]) for row in order]
        outputs = [output for part, _, _ in parts for output in part]
        self._decode(outputs, limits, joined_masks([mask for _, mask, _ in parts]), joined_caches([cache for *_, cache in parts]))
        finished = {row: self._finish(output, limit) for row, output, limit in zip(order, outputs, limits, strict=True)}
        return [finished[row] for row in range(len(audios))]

    def _groups(self, audios: Sequence[np.ndarray]) -> list[list[int]]:
        """Which clips are heard in one pass: all, unless their padding costs a CPU more than further passes."""
        if not self.family.whisper_window or self._slides or self.device.type != "cpu":
            return [list(range(len(audios)))]
        return grouped([len(audio) for audio in audios], PASS_SAMPLES)

    def _verify(
        self,
        audios: Sequence[np.ndarray],
        prefixes: Sequence[Sequence[int]],
        directions: Sequence[Direction],
        drafts: Sequence[Sequence[int]],
    ) -> tuple[list[list[int]], torch.Tensor, Any]:
        """Of each draft the tokens that the model would choose as well, and its own next one; the mask and cache behind them."""
        prompts, audio = self.prompts(audios, directions)
        rows = [[*p, *prefix, *draft] for p, prefix, draft in zip(prompts, prefixes, drafts, strict=True)]
        inputs = self.pad(rows, audio)
        hidden, cache = self.forward(inputs, use_cache=True)
        outputs: list[list[int]] = []
        rejected = False
        for row, draft in enumerate(drafts):
            # of the draft's own logits and the one before it, each is about the next token
            choices = self.logits(hidden[row, hidden.shape[1] - len(draft) - 1 :]).argmax(-1).tolist()
            accepted = _agreeing(draft, choices)
            if accepted < len(draft):  # the rejected tokens stay in the cache, unseen
                inputs.mask[row, inputs.mask.shape[1] - (len(draft) - accepted) :] = 0
                rejected = True
            outputs.append([*draft[:accepted], choices[accepted]])
        if rejected and self._slides:  # unseen, they would still push older tokens out of the attention's window
            rows = [[*p, *prefix, *output[:-1]] for p, prefix, output in zip(prompts, prefixes, outputs, strict=True)]
            inputs = self.pad(rows, audio)
            _, cache = self.forward(inputs, use_cache=True)
        return outputs, inputs.mask, cache

    def _decode(self, outputs: list[list[int]], limits: list[int], mask: torch.Tensor, cache: Any) -> None:
        """Greedy decoding of all rows that have not ended, one token a step; rows that end leave the batch."""
        active = list(range(len(outputs)))
        while True:
            going = [i for i, row in enumerate(active) if self._goes_on(outputs[row], limits[row])]
            if not going:
                return
            if len(going) < len(active):
                chosen = torch.tensor(going, device=mask.device)
                cache.batch_select_indices(chosen)
                mask = mask[chosen]
                active = [active[i] for i in going]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            last = torch.tensor([[outputs[row][-1]] for row in active], device=mask.device)
            result = self._backbone(
                input_ids=last,
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                past_key_values=cache,
                use_cache=True,
            )
            for row, token in zip(active, self.logits(result.last_hidden_state[:, -1]).argmax(-1).tolist(), strict=True):
                outputs[row].append(token)

    def _goes_on(self, output: list[int], limit: int) -> bool:
        return output[-1] not in self.eos_ids and len(output) < limit

    def _finish(self, output: list[int], limit: int) -> list[int]:
        """The output up to EOS or the limit."""
        ends = [i for i, token in enumerate(output) if token in self.eos_ids]
        return output[: min([*ends, max(limit, 0)])]

    def forward(self, inputs: Inputs, use_cache: bool = False) -> tuple[torch.Tensor, Any]:
        """Last hidden states `[batch, length, width]` of one pass, and its cache if asked for; gradients are kept."""
        if self.family.mixes_lengths:
            return run_apart(lambda rows, audio: self._run(inputs.ids[rows], inputs.mask[rows], audio, use_cache), inputs.audio)
        return self._run(inputs.ids, inputs.mask, inputs.audio, use_cache)

    def _run(
        self, ids: torch.Tensor, mask: torch.Tensor, audio: dict[str, torch.Tensor], use_cache: bool
    ) -> tuple[torch.Tensor, Any]:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with self._shortcuts(audio):
            result = self._backbone(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=use_cache, **audio)
        return result.last_hidden_state, result.past_key_values if use_cache else None

    @contextlib.contextmanager
    def _shortcuts(self, audio: dict[str, torch.Tensor]) -> Iterator[None]:
        """The tower without its padding and with its memory, where it is one that can do so."""
        if not self.family.whisper_window:
            yield
            return
        frames = audio["feature_attention_mask"].sum(1).tolist()
        with narrowed(self.tower, audio["input_features"].shape[-1]), recalling(self.tower, frames):
            yield

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float32 logits with the audio placeholder ruled out: it must never be said."""
        logits = self._head(hidden).float()
        if self._scaling is not None:
            logits = logits / self._scaling
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        if self.audio_token_id < self.vocabulary_size:
            logits[..., self.audio_token_id] = -torch.inf
        return logits  # type: ignore[no-any-return]

    def pad(self, rows: Sequence[Sequence[int]], audio: dict[str, torch.Tensor]) -> Inputs:
        """Token ids as one batch, padded on the left."""
        longest = max(len(row) for row in rows)
        ids = torch.tensor([[self._pad_id] * (longest - len(row)) + list(row) for row in rows], device=self.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.device)
        return Inputs(ids, mask, audio)

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.to(self.device)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def _agreeing(draft: Sequence[int], choices: Sequence[int]) -> int:
    """How many leading tokens of a draft are what the model would have chosen."""
    for i, (guess, choice) in enumerate(zip(draft, choices, strict=False)):
        if guess != choice:
            return i
    return len(draft)


def _languages(direction: Direction) -> tuple[str, str]:
    return base_language(direction.source_lang), base_language(direction.target_lang)


def _in_words(direction: Direction) -> str:
    return f"{language_name(direction.source_lang)} to {language_name(direction.target_lang)}"


def _at_least(audio: np.ndarray, length: int) -> np.ndarray:
    return audio if len(audio) >= length else np.pad(audio, (0, length - len(audio)))


def _eos_ids(generation_config: Any, tokenizer: Any, turn_end: str) -> list[int]:
    """Every token that ends an answer, the one to train on first."""
    configured = generation_config.eos_token_id
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    own = tokenizer.get_vocab().get(turn_end, tokenizer.eos_token_id) if turn_end else tokenizer.eos_token_id
    if own is not None and own in ids:
        ids.remove(own)
    if own is not None:
        ids.insert(0, own)
    if not ids:
        raise LALMError("neither the tokenizer nor the generation config names an end-of-sequence token; set eos_token")
    return [int(token) for token in ids]

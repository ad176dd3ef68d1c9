"""The bundled models' text: vocabulary, instructions, chat template."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 4000

PAD, EOS, TURN = "<|endoftext|>", "<|im_end|>", "<|im_start|>"
AUDIO, AUDIO_BEGIN, AUDIO_END = "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"
SPECIAL_TOKENS = (PAD, TURN, EOS, AUDIO_BEGIN, AUDIO_END, AUDIO)

TRANSLATE = "Translate the English speech into German."
TRANSCRIBE = "Transcribe the English speech."

# One user turn (first the audio, then the instruction), followed by the start of the answer.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<|im_start|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>"
    "{% elif message['role'] == 'assistant' %}<|im_start|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{{ message['content'][0]['text'] }}{% endif %}"
    "<|im_end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE over both languages; the instructions are counted often enough to become whole-word tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *[TRANSLATE, TRANSCRIBE] * 2000], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[TURN, AUDIO_BEGIN, AUDIO_END, AUDIO],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )

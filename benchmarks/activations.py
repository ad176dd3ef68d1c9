"""What a training pass saves for its backward pass, per token and decoder layer: the constants of `simulsa.training.memory`.

python -m benchmarks.activations

Counts the tensors that autograd saves, so it needs no GPU: bfloat16 autocast, float32 LoRA matrices on a bfloat16 base, Qwen2
layers, not compiled. Models are compared with ones that have one more layer, and with ones of other widths.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from simulsa.training.config import TrainConfig
from simulsa.training.lora import add_lora, train_mode
from simulsa.training.memory import PassShape, activation_bytes

TOKENS = 128
SHAPES = [PassShape(2, TOKENS, 2, width, feed_forward) for width, feed_forward in ((256, 512), (256, 1024), (512, 1024))]


def saved_bytes(shape: PassShape, checkpointed: bool = False) -> int:
    """The bytes that autograd holds after a forward pass, not counting weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=256,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // 64,
        num_key_value_heads=shape.width // 64,
    )
    base = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model = add_lora(base, TrainConfig(), checkpointed)
    train_mode(model)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    embedded = torch.randn(shape.rows, shape.tokens, shape.width).to(torch.bfloat16)
    layers = model.get_base_model().model
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        hidden = layers(inputs_embeds=embedded, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(saved.values())


def main() -> None:
    """Print the bytes per token and layer of each shape, and what the constants predict."""
    for shape in SHAPES:
        for checkpointed in (False, True):
            more = saved_bytes(replace(shape, layers=3), checkpointed) - saved_bytes(shape, checkpointed)
            count = more / (shape.rows * shape.tokens)
            one = replace(shape, layers=1, rows=1, tokens=1)
            said = f", estimated {activation_bytes(one)}" if not checkpointed else ", checkpointed"
            print(f"width {shape.width}, feed-forward {shape.feed_forward}: {count:.0f} bytes a token and layer{said}")


if __name__ == "__main__":
    main()

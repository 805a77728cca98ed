"""The models of `runtime.py`, how their batches are split, and what a step of one took."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

RANKS = 2
ROWS = {64: 8, 256: 8, 1024: 32, 2048: 64}  # of a micro-batch
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Case:
    """A model and how its batch is split; made again in every process."""

    model: str  # a size, or the name of a model
    num_microbatches: int

    def build(self, num_microbatches: int | None = None) -> tuple[nn.Module, dict[str, Tensor], str]:
        """The model, its call, and the module at which it is cut."""
        torch.manual_seed(0)
        m = num_microbatches or self.num_microbatches
        if self.model.isdigit():
            size = int(self.model)
            layers = [layer for _ in range(8) for layer in (nn.Linear(size, size), nn.ReLU())]
            return nn.Sequential(*layers).eval(), {"input": torch.randn(ROWS[size] * m, size)}, "8"
        import transformers

        if self.model == "GPT-2":
            gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))
            return gpt2.eval(), {"input_ids": torch.randint(50257, (m, 32))}, "transformer.h.8"
        config = transformers.LlamaConfig(
            hidden_size=768, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=12,
            num_key_value_heads=4, vocab_size=4096, use_cache=False,
        )  # fmt: skip
        tokens = {"input_ids": torch.randint(4096, (m, 64)), "attention_mask": torch.ones(m, 64, dtype=torch.int64)}
        tokens["attention_mask"][::2, :7] = 0
        return transformers.LlamaForCausalLM(config).eval(), tokens, "model.layers.4"


@dataclass(frozen=True)
class Taken:
    """What one step took."""

    step_s: float
    stage_s: float  # of the slower stage, per micro-batch
    wall_s: float = 0.0  # as the caller sees it

    def ideal_s(self, m: int) -> float:
        return (m + RANKS - 1) * self.stage_s

    def efficiency(self, m: int) -> float:
        return self.ideal_s(m) / self.step_s

    def overhead_s(self, m: int) -> float:
        return (self.step_s - self.ideal_s(m)) / m


def first(output: Any) -> Tensor:
    """The first output."""
    tensor = output if isinstance(output, Tensor) else output[0]
    assert isinstance(tensor, Tensor)
    return tensor

"""The peer of several benchmarks: GPT-2 small in stages by hand, on torch's own pipeline over gloo.

Run by torchrun, as torch's tutorial has it: every process builds the model, keeps its stage of it, and calls
`ScheduleGPipe`. The last rank prints "output" when it has the first one, rank 0 what memory all took as JSON.

    torchrun --nproc-per-node 4 benchmarks/torch_pipeline.py ROWS TOKENS MICROBATCHES
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from transformers import GPT2Config, GPT2LMHeadModel


class Part(nn.Module):
    """Some blocks of GPT-2, with the embeddings before the first and the head after the last."""

    def __init__(self, model: GPT2LMHeadModel, rank: int, num_ranks: int) -> None:
        super().__init__()
        body = model.transformer
        count = len(body.h) // num_ranks
        self.blocks = nn.ModuleList(body.h[count * rank : count * (rank + 1)])
        self.embeddings = nn.ModuleList([body.wte, body.wpe]) if rank == 0 else None
        self.head = nn.Sequential(body.ln_f, model.lm_head) if rank == num_ranks - 1 else None

    def forward(self, values: Tensor) -> Tensor:
        """Tokens or hidden states to hidden states or logits."""
        if self.embeddings is not None:
            tokens, positions = self.embeddings
            values = tokens(values) + positions(torch.arange(values.shape[1]))
        for block in self.blocks:
            values = block(values)
        return self.head(values) if self.head is not None else values


def memory_mb() -> dict[str, float]:
    """Proportional set size of this process now, and the most that it held beyond what it holds now, in MB."""
    status = kilobytes_mb("/proc/self/status")
    return {"pss": kilobytes_mb("/proc/self/smaps_rollup")["Pss"], "above": status["VmHWM"] - status["VmRSS"]}


def kilobytes_mb(path: str) -> dict[str, float]:
    """The lines of a file that end in kB, in MB."""
    fields = (line.split() for line in Path(path).read_text().splitlines())
    return {field[0].rstrip(":"): int(field[1]) * 1024 / 1e6 for field in fields if field[-1] == "kB"}


def main() -> None:
    """Build, step, print."""
    num_rows, num_tokens, num_microbatches = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    dist.barrier()
    idle = memory_mb()["pss"]
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    part = Part(model, rank, num_ranks)
    del model
    stage = PipelineStage(part, rank, num_ranks, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, num_microbatches)
    tokens = torch.zeros(num_rows, num_tokens, dtype=torch.int64)
    with torch.no_grad():
        output = schedule.eval(tokens) if rank == 0 else schedule.eval()
    if rank == num_ranks - 1:
        print("output", tuple(output.shape), flush=True)
    dist.barrier()
    now = memory_mb()
    gathered: list[dict[str, float]] = [{}] * num_ranks
    dist.all_gather_object(gathered, {"steady": now["pss"] - idle, "peak": now["pss"] + now["above"] - idle})
    if rank == 0:
        print(json.dumps({key: sum(of_rank[key] for of_rank in gathered) for key in ("steady", "peak")}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

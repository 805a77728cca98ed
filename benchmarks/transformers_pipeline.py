"""A peer of `generate.py`: transformers' own `generate` over stages (`pp_size`), over gloo.

Run by torchrun. Every process makes the same tokens; the first prints the seconds of each run as JSON.

    torchrun --nproc-per-node 2 benchmarks/transformers_pipeline.py FOLDER ROWS PROMPT NEW RUNS
"""

import json
import os
import sys
import time

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig


def main() -> None:
    """Load, generate, print."""
    folder, (rows, prompt, new, runs) = sys.argv[1], map(int, sys.argv[2:])
    torch.set_num_threads(1)
    world = int(os.environ["WORLD_SIZE"])
    model = AutoModelForCausalLM.from_pretrained(folder, distributed_config=DistributedConfig(pp_size=world)).eval()
    ids = torch.randint(0, model.config.vocab_size, (rows, prompt), generator=torch.Generator().manual_seed(0))
    taken = []
    for _ in range(runs + 1):  # the first one warms up
        dist.barrier()
        began = time.perf_counter()
        made = model.generate(ids, max_new_tokens=new, do_sample=False, pad_token_id=0)
        taken.append(time.perf_counter() - began)
    if dist.get_rank() == 0:
        print(json.dumps({"seconds": taken[1:], "ids": made.tolist()}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""Claim: a model of any size is traced here without its weights, at little more than the price of torch.export.

Peer: plain `torch.export.export` of the same model on the meta device, with the same dynamic batch. Each case
is a process of its own, so that peak memory is its own.

    python benchmarks/tracing.py
"""

import json
import resource
import subprocess
import sys
import time

CASES = {
    "GPT-2 small": ("GPT2Config", {}),
    "BLOOM-176B": ("BloomConfig", {"hidden_size": 14336, "n_layer": 70, "n_head": 112, "vocab_size": 250880}),
    "LLaMA-3-405B": (
        "LlamaConfig",
        {
            "hidden_size": 16384,
            "intermediate_size": 53248,
            "num_hidden_layers": 126,
            "num_attention_heads": 128,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
        },
    ),
}
BATCH, LENGTH = 2, 512


def measure(name: str, tool: str) -> None:
    """Trace one model by one tool and print seconds, peak memory and what was found."""
    import torch
    import transformers

    import pipelab

    class_name, settings = CASES[name]
    config = getattr(transformers, class_name)(**settings)
    model_class = {"GPT2Config": "GPT2LMHeadModel", "BloomConfig": "BloomForCausalLM"}.get(
        class_name, "LlamaForCausalLM"
    )
    getattr(transformers, model_class)  # the import is not the trace
    start, cpu = time.perf_counter(), time.process_time()
    if tool == "pipelab":
        traced = pipelab.trace_pretrained(config, batch_size=BATCH, seq_len=LENGTH, dtype=torch.bfloat16)
        found = f"{traced.graph.num_params:,} parameters, {len(traced.graph.cut_points):,} cuts"
    else:
        with torch.device("meta"), torch.no_grad():
            model = getattr(transformers, model_class)._from_config(config, dtype=torch.bfloat16).eval()
            ids = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
            shapes = {"input_ids": {0: torch.export.Dim.AUTO}, "use_cache": None}
            exported = torch.export.export(
                model, (), {"input_ids": ids, "use_cache": False}, dynamic_shapes=shapes, strict=False
            )
            found = f"{len(exported.graph.nodes):,} nodes"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([time.perf_counter() - start, time.process_time() - cpu, peak, found]))


def main() -> None:
    """Print the table."""
    from machine import machine  # the line that says where this was measured

    print(machine())
    print(f"{'model':13} {'tool':13} {'wall s':>7} {'CPU s':>7} {'peak MB':>8}  ratio to torch.export (CPU)  found")
    for name in CASES:
        results = {}
        for tool in ("torch.export", "pipelab"):
            command = [sys.executable, __file__, name, tool]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results[tool] = json.loads(output.strip().splitlines()[-1])
        for tool, (wall, cpu, peak, found) in results.items():
            ratio = cpu / results["torch.export"][1]
            print(f"{name:13} {tool:13} {wall:7.1f} {cpu:7.1f} {peak / 1e6:8.0f}  {ratio:27.2f}  {found}")


if __name__ == "__main__":
    measure(*sys.argv[1:]) if len(sys.argv) > 1 else main()

"""Claim: a laptop plans LLaMA-3-405B on 16 H100s: in under 90 s and 1 GB, from its config alone.

Peers: closed forms of what the table adds up.

    python benchmarks/plan_405b.py
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STAGES, ROWS, CONTEXT = 16, 32, 8192
HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 16384, 53248, 126, 128, 8, 128256
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}


def expected() -> dict[str, int]:
    """Parameters, their bytes and those of the caches, by hand: two bytes each, one more token than the context."""
    head = HIDDEN // HEADS
    attention = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KV_HEADS * head
    layer = attention + 3 * HIDDEN * INNER + 2 * HIDDEN
    params = LAYERS * layer + 2 * VOCABULARY * HIDDEN + HIDDEN
    cache = 2 * LAYERS * KV_HEADS * head * 2 * ROWS
    return {"parameters": params, "weights, bytes": 2 * params, "KV cache, bytes": cache * (CONTEXT + 1)}


def main() -> None:
    """Print the plan and what it took."""
    command = [
        sys.executable, "-m", "pipelab", "plan", "--stages", str(STAGES), "--hardware", "h100-80gb",
        "--batch-size", str(ROWS), "--context", str(CONTEXT), "--quiet",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        command += ["--model", folder]
        begin = time.perf_counter()
        table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken_s = time.perf_counter() - begin
        peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        found = json.loads(subprocess.run([*command, "--json"], check=True, capture_output=True, text=True).stdout)
    from machine import machine  # imports torch: a child's peak would begin with this process's own

    print(machine())
    print(table)
    stages = found["stages"]
    totals = {
        "parameters": found["num_params"],
        "weights, bytes": sum(stage["weights_bytes"] for stage in stages),
        "KV cache, bytes": sum(stage["kv_cache_bytes"] for stage in stages),
    }
    for name, by_hand in expected().items():
        print(f"{name:16} {totals[name]:>18,}  by hand {by_hand:>18,}")
    print(f"{taken_s:.1f} s, peak {peak_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

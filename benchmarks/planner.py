"""Claim: the exact plan is there before a hand has left the mouse, with its certificate and the landscape.

Peer: the textbook dynamic program over all starts and stops, O(K N²), each row in NumPy: the same optimum, no memory
limits, no proof. "first" asks a graph for the first time and fills what it keeps (op times, cut points); "then" is the
median of what follows, as while a cut is dragged. Processor time.

    python benchmarks/planner.py
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

REPEATS = 9
BATCH, MICROBATCHES = 8, 8


def timed(call: Callable[[], Any], repeats: int = REPEATS) -> tuple[float, float]:
    """Processor seconds of the first call and the median of the others."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return seconds[0], median(seconds[1:])


def line(what: str, found: str, seconds: tuple[float, float], budget: str = "") -> None:
    print(f"{what:58} {found:34} {seconds[0] * 1e3:9.1f} {seconds[1] * 1e3:9.2f}  {budget}", flush=True)


def gpt2(num_layers: int, width: int, heads: int) -> Any:
    from transformers import GPT2Config

    import pipelab

    config = GPT2Config(n_layer=num_layers, n_embd=width, n_head=heads)
    return pipelab.trace_pretrained(config, batch_size=BATCH, seq_len=512).graph


def textbook(time_before: Any, transfer: Any, num_stages: int) -> float:
    """The least bottleneck of overlapped stages: best[j] = min over i of max(best[i], cost of i..j), per stage."""
    last = len(time_before) - 1
    best = np.concatenate([[0.0], np.full(last, np.inf)])
    for _ in range(num_stages):
        new = np.full(last + 1, np.inf)
        for stop in range(1, last + 1):
            work = time_before[stop] - time_before[:stop]
            new[stop] = max(np.maximum(np.maximum(best[:stop], work), transfer[:stop]).min(), transfer[stop])
        best = new
    return float(best[-1])


def main() -> None:
    """Print the table."""
    from machine import machine  # the line that says where this was measured

    import pipelab
    from pipelab.candidates import candidates
    from pipelab.costs import Costs
    from pipelab.hardware import devices_of

    print(machine())
    print(f"{'what':58} {'found':34} {'first ms':>9} {'then ms':>9}  budget")

    long = gpt2(130, 1600, 25)
    cuts = f"{len(long.legal):,} cut positions"
    hardware = "h100-80gb"
    for objective, limit in (("time", None), ("time", 4e9), ("flops", None), ("params", None), ("memory", None)):
        settings = {"num_stages": 16, "objective": objective, "granularity": "op", "hardware": hardware}
        settings["num_microbatches"] = MICROBATCHES
        seconds = timed(lambda s=settings, m=limit: pipelab.optimal(long, **s, memory_limit_bytes=m))
        plan = pipelab.optimal(long, **settings, memory_limit_bytes=limit)
        what = f"optimal, 16 stages, any op, {objective}" + (f", limit {limit / 1e9:g} GB" if limit else "")
        far = pipelab.regret(
            plan, granularity="op", objective=objective, memory_limit_bytes=limit, num_microbatches=MICROBATCHES
        )
        line(what, f"{cuts}, {far.fraction:.2%} above", seconds, "50 ms")
    same: dict[str, Any] = {"granularity": "op", "num_microbatches": MICROBATCHES}
    plan = pipelab.optimal(long, num_stages=16, objective="time", hardware=hardware, **same)
    line("regret with certificate, the same", cuts, timed(lambda: pipelab.regret(plan, **same)))
    costs = Costs.of(long, devices_of(hardware, long, 1)[0], BATCH // MICROBATCHES)
    at = list(candidates(long, "op"))
    arrays = costs.loaded_time_before[at], costs.transfer_s[at]
    start = time.process_time()
    found = textbook(*arrays, 16)
    peer_s = time.process_time() - start
    ours = pipelab.regret(plan, **same).optimum
    line("peer: O(K N²) dynamic program, the same", f"optimum {found / ours:.12f} × ours", (peer_s, peer_s))

    def evaluated() -> None:
        moved = plan.with_cuts((*plan.cuts[:-1], plan.cuts[-1] + 1))
        assert moved.stages and moved.boundaries

    line(f"all figures of a plan after a cut moved, {len(long.ops):,} ops", "16 stages", timed(evaluated), "1 ms")

    xl = gpt2(48, 1600, 25)
    for granularity, num_stages in (("block", 8), ("narrow", 8), ("narrow", 16), ("module", 16)):
        drawn = pipelab.uniform(xl, num_stages=num_stages)
        settings = {"objective": "time", "granularity": granularity, "hardware": hardware}
        settings["num_microbatches"] = MICROBATCHES
        places = len(candidates(xl, granularity)) - 2
        seconds = timed(lambda p=drawn, s=settings: pipelab.landscape(p, **s))
        budget = "15 ms" if granularity == "narrow" else ""
        line(f"landscape of GPT-2 XL, {granularity}, {num_stages} stages", f"{places} places", seconds, budget)
    line("frontier of GPT-2 XL, 1, 2, 4, 8 stages", "block", timed(lambda: pipelab.frontier(xl, hardware=hardware), 3))


if __name__ == "__main__":
    main()

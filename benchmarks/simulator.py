"""Claim: thousands of actions are ordered, checked and replayed in milliseconds, for every move of a cut.

Peer: torch's own table of the same schedule, which has orders only, no times. Its 1F1B is left out: the table is
wrong on the last rank. Processor time, the best of five.

    python benchmarks/simulator.py
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelab.replay import Workload, replay
from pipelab.schedules import schedule_actions

SIZES = ((4, 8), (4, 32), (8, 32), (16, 64), (32, 256))
CASES = (
    ("gpipe", False, 1, None),
    ("gpipe", True, 1, "GPipe"),
    ("1f1b", True, 1, None),
    ("interleaved_1f1b", True, 2, "Interleaved1F1B"),
    ("zb_h1", True, 1, None),
)


def best_ms(do: Callable[[], Any]) -> float:
    """Milliseconds of processor time, the best of five."""
    seconds = []
    for _ in range(5):
        start_s = time.process_time()
        do()
        seconds.append(time.process_time() - start_s)
    return 1e3 * min(seconds)


def workload(num_stages: int, num_microbatches: int, parallel: int | None) -> Workload:
    """Uneven stages, with transfers."""
    forward_s = np.random.default_rng(0).uniform(1, 2, num_stages)[:, None] * np.ones(num_microbatches)
    kinds: dict[Any, Any] = {"F": forward_s, "B": 2 * forward_s, "I": forward_s, "W": forward_s}
    return Workload(kinds, 0.1 * forward_s[1:], parallel=parallel)


def torch_ms(name: str, num_ranks: int, num_microbatches: int, per_rank: int) -> float:
    """Milliseconds of torch's table."""
    from torch.distributed.pipelining._schedule_visualizer import get_schedule_ops

    return best_ms(lambda: get_schedule_ops(name, num_ranks, num_microbatches, per_rank))


def main() -> None:
    """Print the table."""
    from machine import machine  # the line that says where this was measured

    print(machine())
    print(
        f"{'schedule':18} {'p':>3} {'m':>4} {'actions':>8} {'order ms':>9} {'replay ms':>10} {'on 2 cores ms':>14} "
        f"{'torch ms':>9}"
    )
    for name, train, per_rank, peer in CASES:
        for num_ranks, num_microbatches in SIZES:
            counts = name, num_ranks, num_ranks * per_rank, num_microbatches, train
            orders = schedule_actions(*counts)
            order_ms = best_ms(lambda counts=counts: schedule_actions.__wrapped__(*counts))  # type: ignore[misc]  # a lambda
            own, shared = (workload(counts[2], num_microbatches, parallel) for parallel in (None, 2))
            replay_ms, shared_ms = (best_ms(lambda work=work: replay(orders, work)) for work in (own, shared))  # type: ignore[misc]  # noqa: B023
            theirs = f"{torch_ms(peer, num_ranks, num_microbatches, per_rank):9.1f}" if peer else f"{'':>9}"
            print(
                f"{name + ('' if train else ' forward'):18} {num_ranks:3} {num_microbatches:4} "
                f"{sum(map(len, orders)):8,} {order_ms:9.1f} {replay_ms:10.1f} {shared_ms:14.1f} {theirs}"
            )


if __name__ == "__main__":
    main()

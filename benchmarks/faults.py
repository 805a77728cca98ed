"""Claim: whatever dies, stalls, raises or is interrupted, nothing hangs, nothing is left, and the next run is right.

Random faults at random moments, 1,000 unless told otherwise. Each has random numbers of its own: `--only 17` replays
number 17 of a seed.

    python benchmarks/faults.py --faults 1000 --seed 0
"""

import argparse
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "launch"))

from campaign import Campaign, Lab, Outcome, clean_room, drawn
from live_faults import LIVE
from machine import machine
from script_faults import SCRIPTS, Zygote

SCRIPT_SHARE = 0.04  # a process of its own takes seconds


def kinds() -> dict[str, float]:
    """How often each is drawn."""
    share = SCRIPT_SHARE / (1 - SCRIPT_SHARE) * sum(weight for weight, _ in LIVE.values())
    total = sum(weight for weight, _ in SCRIPTS.values())
    return {kind: weight for kind, (weight, _) in LIVE.items()} | {
        kind: weight * share / total for kind, (weight, _) in SCRIPTS.items()
    }


def campaign(seed: int, numbers: list[int]) -> tuple[list[Outcome], dict[str, list[str]]]:
    """All outcomes, and what is left of it."""
    with clean_room() as left:
        zygote, lab, doing = Zygote(), Lab(seed), Campaign(seed)
        for number in numbers:
            kind = drawn(seed, number, kinds())
            if kind in LIVE:
                fault = LIVE[kind][1]
                outcome = doing.do(number, kind, lambda rng, outcome, fault=fault: lab.suffer(fault, rng, outcome))
            else:
                script_fault = SCRIPTS[kind][1]
                outcome = doing.do(number, kind, lambda rng, out, fault=script_fault: fault(zygote, rng, out))
            print(f"{number:4} {kind}: {outcome.story}".replace("\n", " ")[:240], file=sys.stderr)
            for mistake in outcome.mistakes:
                print(f"     WRONG: {mistake}", file=sys.stderr)
        lab.pipe.close()
        zygote.close()
        return doing.outcomes, left()


def milliseconds(values: list[float]) -> str:
    """Median and maximum."""
    return f"{median(values) * 1e3:8.0f} {max(values) * 1e3:8.0f}" if values else f"{'–':>8} {'–':>8}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="*")
    options = parser.parse_args()
    begin_s = time.perf_counter()
    outcomes, left = campaign(options.seed, options.only or list(range(options.faults)))
    by_kind: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_kind[outcome.kind].append(outcome)
    print(machine())
    print(f"{'ms until':32} {'':6} {'the error':>17} {'a right output':>17}")
    print(f"{'fault':32} {'count':>6} {'median':>8} {'max':>8} {'median':>8} {'max':>8} {'wrong':>6}")
    for kind, of_kind in [*sorted(by_kind.items(), key=lambda item: -len(item[1])), ("all", outcomes)]:
        detected = milliseconds([outcome.detected_s for outcome in of_kind if outcome.detected_s is not None])
        healed = milliseconds([outcome.healed_s for outcome in of_kind if outcome.healed_s is not None])
        wrong = sum(bool(outcome.mistakes) for outcome in of_kind)
        print(f"{kind:32} {len(of_kind):6} {detected} {healed} {wrong:6}")
    hangs = sum("it hung" in outcome.mistakes for outcome in outcomes)
    print(f"{hangs} hangs, " + ", ".join(f"{len(found)} {what}" for what, found in left.items()), end="")
    print(f" left over; {time.perf_counter() - begin_s:.0f} s, seed {options.seed}")
    for what, found in left.items():
        print("".join(f"{what}: {each}\n" for each in found), end="")
    sys.stdout.flush()
    os._exit(bool(hangs or any(left.values()) or any(outcome.mistakes for outcome in outcomes)))


if __name__ == "__main__":
    main()

"""All numbers on the page are what Python says of the same cuts, as a divider is dragged: 1,000 random ones."""

import random
import re
from dataclasses import replace
from typing import Any

import pytest
from graphs import gpt2_graph
from live_page import LivePage
from random_graphs import random_cuts, random_graph

from pipelab.costs import Costs, rows_of
from pipelab.graph import Graph
from pipelab.hardware import Hardware
from pipelab.plan import Plan
from pipelab.presets import PRESETS
from pipelab.simulator import simulate
from pipelab.units import format_bytes, format_count, format_seconds

pytestmark = pytest.mark.browser

H100 = PRESETS["h100-80gb"]
# A link as slow as its stages, one that waits for it, and too little memory for a stage with the embedding.
SLOW = replace(H100, name="slow", link_bytes_per_s=2e10)
SERIAL = replace(SLOW, name="serial", overlap=False)
CAPPED = replace(SLOW, name="capped", memory_bytes=1.3e9)
MICROBATCHES = 8

# Cuts set one after the other on the page's own model, and all that is then on the screen.
_SHOWN = """(all) => {
  const texts = (selector) => [...document.querySelectorAll(`.pl-explorer ${selector}`)].map((one) => one.textContent);
  return all.map((cuts) => {
    window.live.write({ cuts });
    return {
      times: texts(".pl-box-time"), params: texts(".pl-box-params"), bytes: texts(".pl-box-bytes"),
      arrows: texts(".pl-arrow-labels text").filter((text) => text !== "input"),
      boxes: [...document.querySelectorAll(".pl-box")].map((box) => box.getAttribute("aria-label")),
      verdict: texts(".pl-verdict > span")[0],
      timeline: document.querySelector(".pl-timeline-svg").getAttribute("aria-label"),
      dividers: [...document.querySelectorAll("[role=slider]")].map((one) => Number(one.ariaValueNow)),
    };
  });
}"""


class Expected:
    """What Python says of cuts."""

    def __init__(self, graph: Graph, cuts: tuple[int, ...], device: Hardware | None) -> None:
        self.plan, self.device = Plan(graph, cuts, hardware=device), device
        self.microbatches = min(MICROBATCHES, graph.batch_size)
        self.rows = rows_of(graph.batch_size, self.microbatches)
        self.costs = Costs.of(graph, device, self.rows) if device else None

    @property
    def stage_costs(self) -> list[float]:
        """Seconds of each stage with its transfers, or its parameters."""
        if self.costs is None or self.device is None:
            return [stage.num_params for stage in self.plan.stages]
        before, moves = self.costs.time_before, self.costs.transfer_s
        parts = [(moves[start], before[stop] - before[start], moves[stop]) for start, stop in self.plan.bounds]
        return [float(max(part) if self.device.overlap else sum(part)) for part in parts]

    @property
    def needs(self) -> list[int]:
        """Bytes that each stage needs."""
        held = self.costs or Costs.of(self.plan.graph, replace(H100, reserve_bytes=0), self.rows)
        return [int(held.memory_bytes(*bounds)) for bounds in self.plan.bounds]

    def check(self, shown: dict[str, Any]) -> None:
        assert tuple(shown["dividers"]) == self.plan.cuts
        assert shown["params"] == [format_count(stage.num_params) for stage in self.plan.stages]
        crossing = self.plan.graph.live_bytes_for(self.rows)
        assert shown["arrows"] == [format_bytes(int(crossing[cut])) for cut in self.plan.cuts]
        times = [format_seconds(cost) for cost in self.stage_costs] if self.device else [""] * self.plan.num_stages
        assert shown["times"] == times
        for box, text, needs in zip(shown["boxes"], shown["bytes"], self.needs, strict=True):
            self.check_memory(box, text, needs)
        self.check_verdict(shown["verdict"])
        self.check_timeline(shown["timeline"])

    def check_memory(self, box: str, text: str, needs: int) -> None:
        capacity = self.device.memory_bytes if self.device else None
        if capacity is None or needs <= capacity:
            assert f"{format_bytes(needs)} of memory" in box
            assert text.split(" of ")[0] == format_bytes(needs)
        else:  # rounded so that it is seen to be more
            found = re.search(r"([\d.]+) of ([\d.]+) (\w?)B", text)
            assert found
            unit = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[3]]
            step = 0.1 if "." in found[1] else 1
            assert 0 <= float(found[1]) - needs / unit < step
            assert 0 <= capacity / unit - float(found[2]) < step
            assert float(found[1]) > float(found[2])

    def check_verdict(self, text: str) -> None:
        costs = self.stage_costs
        most, mean = max(costs), sum(costs) / len(costs)
        if not mean:
            assert text == "The model has no parameters."
        elif self.device is None:
            assert text.startswith(f"Stage {costs.index(most)} holds {format_count(most)} parameters, ")
            assert float(text.split("parameters, ")[1].split(" ×")[0]) == pytest.approx(most / mean, abs=0.0051)
        else:
            is_ = "is the bottleneck:" if len(costs) > 1 else "takes"
            assert text.startswith(f"Stage {costs.index(most)} {is_} {format_seconds(most)} per micro-batch")
            large = [index for index, needs in enumerate(self.needs) if needs > (self.device.memory_bytes or 1e99)]
            assert ("more than" in text or " needs " in text) == bool(large)
            assert large or len(costs) == 1 or f"the average is {format_seconds(mean)}." in text

    def check_timeline(self, text: str) -> None:
        if self.device is None:
            assert text.startswith("Predicted from FLOPs")
            return
        found = simulate(self.plan, num_microbatches=self.microbatches)
        idle = [1 - busy / found.makespan_s for busy in found.rank_busy_s]
        assert f"Predicted: step {format_seconds(found.makespan_s)}, " in text
        wanted = [found.bubble_fraction, *idle]
        percents = [int(number) for number in re.findall(r"idle (\d+)\s?%", text)]
        assert percents == pytest.approx([100 * share for share in wanted], abs=0.5001)


def check(live: LivePage, graph: Graph, device: Hardware | None, all_cuts: list[tuple[int, ...]]) -> None:
    for cuts, shown in zip(all_cuts, live.page.evaluate(_SHOWN, [list(cuts) for cuts in all_cuts]), strict=True):
        Expected(graph, cuts, device).check(shown)


@pytest.mark.parametrize("device", [None, SLOW, SERIAL, CAPPED], ids=["sizes", "slow", "serial", "capped"])
def test_of_a_model_with_tied_weights(open_live, device: Hardware | None) -> None:
    graph, choose = gpt2_graph(12), random.Random(4)
    live = open_live(graph, hardware=device, width=1400)
    check(live, graph, device, [random_cuts(choose, graph, choose.randint(1, 16)) for _ in range(150)])


@pytest.mark.parametrize("seed", range(8))
def test_of_graphs_with_skips_caches_and_buffers(open_live, seed: int) -> None:
    choose = random.Random(seed)
    graph = random_graph(choose)
    most_bytes = Costs.of(graph, H100, 1).memory_bytes(0, len(graph.ops)) - H100.reserve_bytes
    small = replace(SLOW, name="small", reserve_bytes=0, memory_bytes=choose.uniform(0.3, 1) * most_bytes)
    device = choose.choice([None, H100, SLOW, SERIAL, small, small])
    live = open_live(graph, num_stages=1, hardware=device, width=1400)
    most = min(8, len(graph.legal) + 1)
    check(live, graph, device, [random_cuts(choose, graph, choose.randint(1, most)) for _ in range(50)])

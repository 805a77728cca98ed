"""What a report says: the verdict, on what it was measured, and a row per rank."""

from typing import TYPE_CHECKING, TypeVar

from pipelab.events import COMPUTE, Event
from pipelab.plan import shorten
from pipelab.table import format_table, wrap
from pipelab.units import format_bytes, format_percent, format_seconds, format_spread, plural

if TYPE_CHECKING:
    from pipelab.report import Report

_Kind = TypeVar("_Kind")
# Below this share of the step even the busiest stage is not what the step's duration follows from.
_MOSTLY = 0.5
# Below this the busiest stage does not stand out from the mean.
_EVEN = 1.05
# From here on a factor says more than per cent.
_FAR_OFF = 3.0
_NOTHING_TO_COMPARE = "the unsplit model does not fit here"


def verdict(report: "Report") -> str:
    """Whether it was faster than the unsplit model, who was the bottleneck, and what disturbed it."""
    return " ".join([outcome(report), *remarks(report)])


def outcome(report: "Report") -> str:
    """The verdict without what disturbed it, for who tells that beside it."""
    step = f"{format_seconds(report.step_s)} per step"
    around = spread(report)
    first = f"{step}{f' ({around})' if around else ''}{_against_prediction(report)}{_compared(report)}"
    return " ".join(filter(None, [first, _bottleneck(report)]))


def spread(report: "Report") -> str:
    """Between which times four of five steps lie, in the unit of the median; empty where they are alike."""
    return format_spread(report.step_s, *report.spread_s)


def remarks(report: "Report") -> list[str]:
    """Sentences on what makes times longer than they need be."""
    return [text for text in (_crowded(report), report.other_load.sentence if report.other_load else "") if text]


def _crowded(report: "Report") -> str:
    """That there are more threads than cores; empty where there are not."""
    cores, threads = _known(report, "cores", int), _known(report, "threads_per_rank", int) or 1
    ranks = report.timeline.num_ranks
    if cores is None or ranks * threads <= cores or report.is_paced or report.environment.get("device") != "cpu":
        return ""
    return f"{plural(ranks, 'rank')} share {plural(cores, 'core')}."


def full_text(report: "Report") -> str:
    """The verdict, how and on what it was measured, and a table of the ranks."""
    header = ["rank", "holds", "computes", "moves data", "waits", "peak memory"]
    table = format_table(header, [_row(report, rank) for rank in range(report.timeline.num_ranks)], left=(0, 1))
    return "\n".join([wrap(report.verdict), wrap(_how(report)), wrap(where(report)), table])


def _against_prediction(report: "Report") -> str:
    """The predicted duration, and how far off it was."""
    if report.predicted is None or not report.predicted.makespan_s:
        return ""
    predicted_s = report.predicted.makespan_s
    ratio = report.step_s / predicted_s
    off = f"{'+' * (ratio >= 1)}{format_percent(ratio - 1)}" if ratio < _FAR_OFF else f"{ratio:.1f} × that"
    return f", {format_seconds(predicted_s)} predicted ({off})"


def _compared(report: "Report") -> str:
    """The rest of the first sentence."""
    if report.is_paced:
        return ". Paced: each stage waited its predicted time instead of computing."
    if report.baseline_s is None:
        return f"; {report.no_baseline or _NOTHING_TO_COMPARE}."
    factor = report.baseline_s / report.step_s
    return f": {factor:.2f} × the speed of the unsplit model ({format_seconds(report.baseline_s)})."


def _bottleneck(report: "Report") -> str:
    """Who computes most, and how much of the time nobody does."""
    busy, ranks = report.timeline.rank_busy_s, report.timeline.num_ranks
    if ranks == 1:
        return ""
    slowest, mean_s = busy.index(max(busy)), sum(busy) / ranks
    longest, mean = format_seconds(busy[slowest]), format_seconds(mean_s)
    if busy[slowest] < _MOSTLY * report.timeline.makespan_s:
        text = f"No stage computes for more than {longest} of it: the rest is moving data and waiting."
    elif busy[slowest] < _EVEN * mean_s:
        text = f"The stages are even: each computes about {mean}."
    else:
        text = f"Stage {slowest} is the bottleneck: it computes {longest}, the mean is {mean}."
    return f"{text} Ranks are idle {format_percent(report.bubble_fraction)} of the time."


def _how(report: "Report") -> str:
    steps = len(report.steps_s)
    times = f"median{' (10th to 90th percentile)' if steps > 1 else ''} of {plural(steps, 'step')}"
    warmup = "" if report.warmup_s is None else f" after one of {format_seconds(report.warmup_s)} to warm up"
    return (
        f"{report.plan.graph.model}: {plural(report.timeline.num_ranks, 'rank')}, batch of {report.batch_size} in "
        f"{plural(report.timeline.num_microbatches, 'micro-batch')}, {times}{warmup}"
    )


def where(report: "Report") -> str:
    """Devices, links, machine, versions and what else it did, as far as they are known."""
    cores, memory_bytes = _known(report, "cores", int), _known(report, "memory_bytes", int)
    load = report.other_load  # what disturbed stands in the verdict
    machine = [
        _known(report, "gpu", str),
        _known(report, "processor", str),
        plural(cores, "core") if cores else None,
        format_bytes(memory_bytes) if memory_bytes else None,
        _known(report, "system", str),
        *(f"{name} {version}" for name, key in _VERSIONS if (version := _known(report, key, str))),
        f"other programs used {load.others_cores:.1f} cores" if load and not load.sentence else None,
    ]
    parts = [_known(report, "device_text", str) or "device unknown", ", ".join(filter(None, machine))]
    return "; ".join(filter(None, parts))


_VERSIONS = (("Python", "python"), ("torch", "torch"), ("pipelab", "pipelab"))


def _known(report: "Report", key: str, kind: type[_Kind]) -> _Kind | None:
    """What the environment says; None where it says nothing, or, in a file from elsewhere, nonsense."""
    value = report.environment.get(key)
    return value if isinstance(value, kind) else None


def _row(report: "Report", rank: int) -> list[str]:
    events = [event for event in report.timeline.events if event.rank == rank]

    def seconds(*kinds: str) -> str:
        return format_seconds(sum(_duration_s(event) for event in events if event.kind in kinds))

    holds = shorten(report.plan.stages[rank].labels)
    peak = format_bytes(report.peak_memory_bytes[rank])
    return [str(rank), holds, seconds(*COMPUTE), seconds("send", "recv"), seconds("wait"), peak]


def _duration_s(event: Event) -> float:
    return event.end_s - event.start_s

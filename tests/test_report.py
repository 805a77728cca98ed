"""Reports: the verdict first, then the table; a saved one needs no process."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from graphs import gpt2_graph
from test_events import fill_drain

from pipelab.errors import PipelabError
from pipelab.events import Event, Timeline
from pipelab.load import OtherLoad
from pipelab.plan import Plan
from pipelab.report import Report
from pipelab.table import wrap


@pytest.fixture
def report() -> Report:
    graph = gpt2_graph(4, hidden=8, vocab=32)
    cuts = tuple(block.start for block in graph.blocks[2:4])
    return Report(
        plan=Plan(graph, cuts),
        timeline=fill_drain(3, 4),
        steps_s=(6.5, 6.0, 5.5),
        batch_size=12,
        baseline_s=9.0,
        peak_memory_bytes=(1_000_000, 2_000_000, 3_000_000),
        environment={"device": "cpu", "cores": 2, "device_text": "3 ranks on the CPU", "python": "3.11.9"},
        output="the output",
        warmup_s=7.0,
        other_load=OtherLoad(0.1, 0.0, 2, 0, 1.0),
    )


def test_figures_follow_from_the_median_step(report: Report) -> None:
    assert report.step_s == 6.0
    assert report.samples_per_s == 2.0
    assert report.speedup == 1.5
    assert report.bubble_fraction == pytest.approx(2 / 6)


def test_repr_begins_with_whether_it_paid(report: Report) -> None:
    *said, title, rest, where, header, first, second, third = repr(report).splitlines()
    assert " ".join(said) == report.verdict  # in lines that a notebook need not break
    assert report.verdict.startswith("6.00 s per step (5.60 to 6.40): 1.50 × the speed of the unsplit model (9.00 s).")
    assert report.verdict.endswith("Ranks are idle 33\u00a0% of the time. 3 ranks share 2 cores.")
    assert "batch of 12 in 4 micro-batches, median (10th to 90th percentile) of 3 steps after" in f"{title} {rest}"
    assert rest.endswith("one of 7.00 s to warm up")
    assert where == "3 ranks on the CPU; 2 cores, Python 3.11.9, other programs used 0.1 cores"
    assert header.split() == ["rank", "holds", "computes", "moves", "data", "waits", "peak", "memory"]
    assert [row[0] for row in (first, second, third)] == ["0", "1", "2"]


def test_a_line_does_not_end_between_a_number_and_its_unit() -> None:
    assert wrap("word " * 15 + "3.32 s").splitlines()[1] == "3.32 s"  # "3.32" alone would end at 79 of 80


def test_step_that_hardly_computes_has_no_bottleneck(report: Report) -> None:
    slow = Timeline((*report.timeline.events, Event(0, 0, 3, "wait", 4.0, 20.0)), 3, 3, 4)
    assert "The stages are even" in report.verdict
    assert "No stage computes for more than 4.00 s of it" in replace(report, timeline=slow).verdict


@pytest.mark.parametrize(
    ("last_s", "said"),
    [
        (1.04, "The stages are even: each computes about 1.01 s."),
        (1.6, "Stage 2 is the bottleneck: it computes 1.60 s, the mean is 1.20 s."),
    ],
)
def test_a_bottleneck_stands_out_from_the_mean(report: Report, last_s: float, said: str) -> None:
    events = tuple(Event(rank, rank, 0, "F", 0.0, last_s if rank == 2 else 1.0) for rank in range(3))
    assert said in replace(report, timeline=Timeline(events, 3, 3, 1)).verdict


def test_unsplit_model_that_does_not_fit_is_said(report: Report, tmp_path: Path) -> None:
    alone = replace(report, baseline_s=None)
    assert alone.speedup is None
    assert "(5.60 to 6.40); the unsplit model does not fit here." in alone.verdict
    alone.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == alone


def test_saved_report_is_the_same_without_the_output(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "report.json")
    loaded = Report.load(tmp_path / "report.json")
    assert loaded == report
    assert loaded.output is None
    assert repr(loaded) == repr(report)


@pytest.mark.parametrize(
    ("steps_s", "spread_s", "said"),
    [
        ((2.0,), (2.0, 2.0), "2.00 s per step: "),
        (tuple(range(1, 12)), (2.0, 10.0), "6.00 s per step (2.00 to 10.00): "),
        ((0.0121, 0.0123, 0.0129), (0.01214, 0.01278), "12.3 ms per step (12.1 to 12.8): "),
    ],
)
def test_spread_is_that_of_four_steps_of_five(
    report: Report, steps_s: tuple[float, ...], spread_s: tuple[float, float], said: str
) -> None:
    other = replace(report, steps_s=steps_s)
    assert other.spread_s == pytest.approx(spread_s)
    assert other.verdict.startswith(said)


OTHERS = "Other programs used 0.7 of 2 cores meanwhile"


@pytest.mark.parametrize(
    ("others", "withheld", "spare", "said"),
    [
        (0.7, 0.0, 0, f"{OTHERS}: times may be too long."),
        (0.7, 0.0, 1, ""),  # on a core that the ranks left free
        (0.1, 0.1, 0, ""),
        (0.0, 0.4, 1, "The host of this virtual machine withheld 0.4 of 2 cores meanwhile: times may be too long."),
        (0.7, 0.4, 0, f"{OTHERS}, and the host of this virtual machine withheld 0.4 of 2 cores meanwhile: times may"),
    ],
)
def test_what_disturbed_is_said_in_a_sentence(
    report: Report, others: float, withheld: float, spare: int, said: str
) -> None:
    load = OtherLoad(others, withheld, 2, spare, 1.0)
    assert load.disturbed == bool(said)
    assert load.sentence.startswith(said)
    assert replace(report, other_load=load).verdict.endswith(load.sentence or "3 ranks share 2 cores.")


def test_one_busy_process_is_told_on_any_machine_and_a_quiet_one_is_not() -> None:
    for cores in (1, 2, 8, 64, 192):
        assert OtherLoad(1.0, 0.0, cores, 0, 1.0).disturbed
        assert not OtherLoad(0.1, 0.1, cores, 0, 1.0).disturbed


def test_a_report_of_the_version_before_still_reads(report: Report, tmp_path: Path) -> None:
    new = {"warmup_s", "other_load", "no_baseline"}
    old = {key: value for key, value in report.to_json().items() if key not in new} | {"version": 2}
    (tmp_path / "report.json").write_text(json.dumps(old))
    assert Report.load(tmp_path / "report.json") == replace(report, warmup_s=None, other_load=None)


@pytest.mark.parametrize(
    ("text", "said"),
    [("no json", "not JSON"), ("{}", "format"), ('{"format": "pipelab-report", "version": 7}', "reads version 3")],
)
def test_file_that_is_no_report_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(PipelabError, match=said):
        Report.load(tmp_path / "report.json")


def test_a_report_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(PipelabError, match="no report to read"):
        Report.load(tmp_path / "nothing.json")

"""Reports: the verdict first, then the table; a saved one needs no process."""

from dataclasses import replace
from pathlib import Path

import pytest
from graphs import gpt2_graph
from test_events import fill_drain

from pipelab.errors import PipelabError
from pipelab.events import Event, Timeline
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
        environment={"device": "cpu", "cores": 2, "device_text": "3 ranks on the CPU"},
        output="the output",
    )


def test_figures_follow_from_the_median_step(report: Report) -> None:
    assert report.step_s == 6.0
    assert report.samples_per_s == 2.0
    assert report.speedup == 1.5
    assert report.bubble_fraction == pytest.approx(2 / 6)


def test_repr_begins_with_whether_it_paid(report: Report) -> None:
    first, more, title, header, *rows = repr(report).splitlines()
    assert first.startswith("6.00 s per step: 1.50 × the speed of the unsplit model (9.00 s).")
    assert f"{first} {more}" == report.verdict  # in lines that a notebook need not break
    assert more.endswith("3 ranks share 2 cores.")
    assert "batch of 12 in 4 micro-batches, median of 3 steps" in title
    assert header.split() == ["rank", "holds", "computes", "moves", "data", "waits", "peak", "memory"]
    assert len(rows) == 3


def test_a_line_does_not_end_between_a_number_and_its_unit() -> None:
    assert wrap("word " * 21 + "3.32 s").splitlines()[1] == "3.32 s"  # "3.32" alone would end at 109 of 110


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
    assert alone.verdict.startswith("6.00 s per step; the unsplit model does not fit here.")
    alone.save(tmp_path / "report.json")
    assert Report.load(tmp_path / "report.json") == alone


def test_saved_report_is_the_same_without_the_output(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "report.json")
    loaded = Report.load(tmp_path / "report.json")
    assert loaded == report
    assert loaded.output is None
    assert repr(loaded) == repr(report)


@pytest.mark.parametrize(
    ("text", "said"),
    [("no json", "not JSON"), ("{}", "format"), ('{"format": "pipelab-report", "version": 7}', "version 7")],
)
def test_file_that_is_no_report_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(PipelabError, match=said):
        Report.load(tmp_path / "report.json")


def test_a_report_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(PipelabError, match="no report to read"):
        Report.load(tmp_path / "nothing.json")

"""`explorer_figure`: what the closed explorer shows, as a picture that needs no kernel and no browser half."""

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure

from pipelab.costs import default_microbatches
from pipelab.events import Timeline
from pipelab.plan import Plan
from pipelab.report import Report
from pipelab.units import plural
from pipelab.viz.compare_ribbon import shortened
from pipelab.viz.explorer_facts import Facts
from pipelab.viz.explorer_panels import RIBBON, SIZE, boxes_height, draw_boxes, draw_pieces, piece_edges, places_of
from pipelab.viz.explorer_state import about
from pipelab.viz.figures import Sheet
from pipelab.viz.palette import EDGE
from pipelab.viz.timeline_figure import timeline

# All lengths are inches.
_WIDTH, _MARGIN = 10.0, 0.15
_ALL = _WIDTH - 2 * _MARGIN
_NAME, _TITLE, _LINE, _SMALL_LINE = 0.23, 0.47, 0.19, 0.16
_LETTERS, _SMALL_LETTERS = 118, 158  # of a line, at 10 points and at the smallest size
_ROWS_LEFT = 2.05  # where the rows of a timeline begin
_ABOVE_ROWS, _BELOW_ROWS = 0.75, 0.62  # its title and legend; its axis and sentence


def explorer_figure(
    plan: Plan, *, prediction: Timeline | None = None, report: Report | None = None, num_microbatches: int | None = None
) -> Figure:
    """A plan as the explorer shows it: its verdict, the ribbon with its cuts, the stages, and what ranks do when.

    Bytes on the arrows and times are of one micro-batch.

    Args:
        plan: Where the model is cut.
        prediction: What a run is expected to do.
        report: What a run did; beside the prediction if it ran this split, else below it.
        num_microbatches: In how many the batch is split; None is the prediction's number, the report's, or what a run
            takes when nobody says.

    Returns:
        The figure.

    Example:
        >>> from pipelab.viz.explorer_figure import explorer_figure
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
        >>> plan = pipelab.uniform(pipelab.trace(model, torch.zeros(4, 16)), num_stages=2)
        >>> len(explorer_figure(plan, prediction=pipelab.simulate(plan)).axes)  # ribbon, stages, timeline
        3
    """
    plan = plan.without_empty_stage()
    of_run = prediction or (report.timeline if report else None)
    default = of_run.num_microbatches if of_run else default_microbatches(plan.graph.batch_size, plan.num_stages)
    return _Page(Facts(plan, num_microbatches or default), _timelines(plan, prediction, report), report).draw()


def _timelines(
    plan: Plan, prediction: Timeline | None, report: Report | None
) -> list[tuple[Timeline, Timeline | None]]:
    """What to draw as rows, and over it as outlines."""
    if report is None:
        return [(prediction, None)] if prediction else []
    expected = prediction if report.plan.cuts == plan.cuts else report.predicted
    if expected and _kind(expected) != _kind(report.timeline):
        expected = report.predicted
    pairs = [(report.timeline, expected)]
    return pairs if prediction is None or expected is prediction else [(prediction, None), *pairs]


def _kind(of: Timeline) -> tuple[int, int, bool]:
    """What two timelines must share to be laid over one another."""
    return of.num_microbatches, of.num_ranks, of.has_backward


class _Page:
    """A page written from its top, which positions are counted from."""

    def __init__(
        self, facts: Facts, timelines: Sequence[tuple[Timeline, Timeline | None]], report: Report | None
    ) -> None:
        self.facts, self.timelines = facts, timelines
        plan = facts.plan
        told = [facts.verdict]
        if report is not None:
            told.append(f"{'' if report.plan.cuts == plan.cuts else 'The previous split: '}{report.verdict}")
        self.told = [line for text in told for line in textwrap.wrap(text, _LETTERS)]
        self.notes = [line for text in facts.notes for line in textwrap.wrap(text, _SMALL_LETTERS)]
        self.boxes = facts.boxes
        self.edges = piece_edges(plan.graph, _ALL)
        self.places = places_of(plan, self.edges)
        rows = sum(_ABOVE_ROWS + _rows_height(of) + _BELOW_ROWS for of, _ in timelines)
        head = _MARGIN + _TITLE + _LINE * len(self.told) + 0.1
        body = RIBBON + 0.16 + boxes_height(self.boxes) + 0.02 + _SMALL_LINE * len(self.notes)
        self.sheet = Sheet(_WIDTH, head + body + rows + _MARGIN, _MARGIN)

    def draw(self) -> Figure:
        """The whole page."""
        plan = self.facts.plan
        about_it = f"{about(plan.graph)} · {plural(plan.num_stages, 'stage')}, {plan.policy}"
        self.sheet.write(_MARGIN, _MARGIN, shortened(plan.graph.model, 80), fontsize=12, fontweight="bold")
        self.sheet.write(_MARGIN, _MARGIN + _NAME, shortened(about_it, _SMALL_LETTERS), fontsize=SIZE + 0.5, color=EDGE)
        top = _MARGIN + _TITLE
        top = self.sheet.lines(self.told, top, _LINE, fontsize=10) + 0.1
        draw_pieces(self.sheet.panel(_MARGIN, top, _ALL, RIBBON), plan.graph, self.edges, self.places)
        top += RIBBON + 0.16
        height = boxes_height(self.boxes)
        draw_boxes(self.sheet.panel(_MARGIN, top, _ALL, height), self.boxes, self.places)
        top = self.sheet.lines(self.notes, top + height + 0.02, _SMALL_LINE, fontsize=SIZE, color=EDGE)
        for of, over in self.timelines:
            ax = self.sheet.axes(_ROWS_LEFT, top + _ABOVE_ROWS, _WIDTH - _ROWS_LEFT - _MARGIN, _rows_height(of))
            timeline(of, over, ax=ax)
            ax.tick_params(axis="y", labelsize=9)
            top += _ABOVE_ROWS + _rows_height(of) + _BELOW_ROWS
        return self.sheet.figure


def _rows_height(of: Timeline) -> float:
    return of.num_ranks * (0.34 if of.num_ranks <= 4 else 0.26 if of.num_ranks <= 8 else 0.21)

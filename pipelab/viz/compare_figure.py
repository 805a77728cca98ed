"""`compare`: plans of one model below one another, on the same axes."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipelab.comparing import side_by_side
from pipelab.comparison import Comparison, more_text
from pipelab.contenders import Contender
from pipelab.plan import Plan, shorten
from pipelab.report import Report
from pipelab.units import format_count, format_percent, format_seconds, plural
from pipelab.viz.compare_panels import memory_scale, panels_of
from pipelab.viz.compare_ribbon import SMALL, draw_ribbon, ribbon_height
from pipelab.viz.figures import Sheet, literal
from pipelab.viz.palette import EDGE, TEXT, WAIT
from pipelab.viz.value_names import cut_off

# All lengths are inches.
_WIDTH, _MARGIN, _LEFT, _GAP = 12.0, 0.12, 1.72, 0.1
_ALL = _WIDTH - 2 * _MARGIN
_TITLE, _HEADER, _BETWEEN, _LINE = 0.27, 0.24, 0.28, 0.19
_FOOT, _FOOT_LINE = 0.3, 0.155
_LETTERS = 155  # of a title, at 9 points


def compare(plans: Comparison | Mapping[str, Plan | Report] | Sequence[Plan | Report]) -> Figure:
    """Plans of one model on the same axes, each with a row per stage.

    Above its rows a plan has the stages over the model's length, as wide as they compute long. Per stage there are
    parameters, time, memory beside what the device holds (hatched beyond), what crosses the cut after it, and what
    its rank does in the predicted step; where there is a report, in the measured one.

    Args:
        plans: What `pipelab.compare` gave; or plans of one model, or reports, by name or in a list.

    Returns:
        The figure.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(8))).eval()
        >>> traced = pipelab.trace(model, torch.zeros(4, 16))
        >>> mine, even = pipelab.split_at(traced, ["1"]), pipelab.uniform(traced, num_stages=2)
        >>> len(pipelab.viz.compare({"mine": mine, "even": even}).axes)  # a title, a ribbon and five panels each
        14
    """
    return _Page(plans if isinstance(plans, Comparison) else side_by_side(plans)).draw()


class _Page:
    """A page written from its top, which positions are counted from."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        most = max(entry.plan.num_stages for entry in comparison.entries)
        self.row = 0.27 if most <= 4 else 0.22 if most <= 8 else 0.165
        self.head = textwrap.wrap(comparison.verdict, 128)
        self.refused = [line for text in comparison.refusals for line in textwrap.wrap(text, 160)]
        notes = (comparison.title, *comparison.notes)
        self.foot = [line for note in notes for line in textwrap.wrap(note, 215)]
        blocks = sum(self._height_of(entry) + _BETWEEN for entry in comparison.entries)
        lines = _LINE * (len(self.head) + len(self.refused)) + _FOOT_LINE * len(self.foot)
        self.sheet = Sheet(_WIDTH, 0.4 + lines + blocks + _FOOT, _MARGIN)
        self.panels = panels_of(comparison, _WIDTH - _LEFT - _MARGIN, _GAP)

    def draw(self) -> Figure:
        """The whole page."""
        top = self.sheet.lines(self.head, _MARGIN, _LINE, fontsize=10, fontweight="bold") + 0.12
        for entry in self.comparison.entries:
            self._entry(entry, top)
            top += self._height_of(entry) + _BETWEEN
        top = self.sheet.lines(self.refused, top, _LINE, fontsize=9) + 0.1
        self._legend(top)
        self.sheet.lines(self.foot, top + _FOOT, _FOOT_LINE, fontsize=SMALL, color=EDGE)
        return self.sheet.figure

    def _height_of(self, entry: Contender) -> float:
        return _TITLE + ribbon_height(entry, _ALL) + _HEADER + self.row * entry.plan.num_stages

    def _entry(self, entry: Contender, top: float) -> None:
        self._title(entry, top)
        top += _TITLE
        draw_ribbon(self.sheet.panel(_MARGIN, top, _ALL, ribbon_height(entry, _ALL)), entry, _ALL)
        top += ribbon_height(entry, _ALL)
        self.sheet.write(_MARGIN, top + 0.08, "stage", fontsize=SMALL, color=EDGE)
        left, height = _LEFT, self.row * entry.plan.num_stages
        for panel in self.panels:
            self.sheet.write(left, top + 0.08, panel.title(entry), fontsize=SMALL, color=EDGE)
            ax = self.sheet.panel(left, top + _HEADER, panel.width, height)
            ax.set_xlim(0, panel.limit(entry))
            ax.set_ylim(entry.plan.num_stages - 0.5, -0.5)
            panel.draw(ax, entry)
            left += panel.width + _GAP
        for stage in entry.plan.stages:
            style: dict[str, Any] = {"fontsize": SMALL, "va": "center_baseline"}
            middle = top + _HEADER + (stage.index + 0.5) * self.row
            self.sheet.write(_MARGIN, middle, str(stage.index), fontweight="bold", **style)
            self.sheet.write(_MARGIN + 0.22, middle, cut_off(shorten(stage.labels)), **style)

    def _title(self, entry: Contender, top: float) -> None:
        ax = self.sheet.panel(_MARGIN, top, _ALL, _TITLE)
        name, summary = cut_off(entry.name), self._summary(entry)
        bold = ax.text(0, 0.5, literal(name), fontsize=10, fontweight="bold", va="center")
        ax.annotate(
            literal(summary), (1, 0.5), (10, 0), xycoords=bold, textcoords="offset points", va="center",
            fontsize=9 * min(1, (_LETTERS - 1.3 * len(name)) / len(summary)),
        )  # fmt: skip

    def _summary(self, entry: Contender) -> str:
        of = self.comparison
        beside = "the best" if entry is of.best else more_text(of.more(entry), cut_off(of.best.name))
        step = f"{format_seconds(entry.step_s)} per step predicted"
        count = f"{format_count(entry.regret.cost)} parameters at most"
        idle = f"ranks idle {format_percent(entry.predicted.bubble_fraction)}"
        parts = (
            f"{entry.above_text} optimal",
            *((f"{step}, {beside}",) if of.objective == "time" else (f"{count}, {beside}", step)),
            f"{entry.measured_text} measured" if entry.report else "",
            f"{idle}, measured {format_percent(entry.report.bubble_fraction)}" if entry.report else idle,
            f"does not fit: {plural(len(entry.misfits), 'stage')}" if entry.misfits else "",
        )
        return "  ·  ".join(part for part in parts if part)

    def _legend(self, top: float) -> None:
        entries = self.comparison.entries
        # A capacity that lies beyond the axis has no line.
        held = any(min(entry.capacity_bytes) <= memory_scale(self.comparison) for entry in entries)
        outlined = any(entry.report and entry.shares_axis for entry in entries)
        misfits = any(entry.misfits for entry in entries)
        handles = [
            Patch(facecolor="white", edgecolor=TEXT, linewidth=1.3, label="bold: the largest of a plan"),
            Line2D(
                [], [], color=EDGE, linewidth=0.8, linestyle=":", label="the least that a plan's slowest stage takes"
            ),
            Line2D([], [], color=TEXT, linewidth=1, linestyle="--", label="what the device holds") if held else None,
            Patch(facecolor="white", edgecolor=TEXT, hatch="//////", label="does not fit") if misfits else None,
            Patch(color=WAIT, label="rank is idle"),
            Patch(facecolor="none", edgecolor=TEXT, linewidth=0.8, label="outline: predicted") if outlined else None,
        ]
        self.sheet.figure.legend(
            handles=[handle for handle in handles if handle], fontsize=SMALL, ncols=6, frameon=False, borderaxespad=0,
            loc="upper left", bbox_to_anchor=((_MARGIN - 0.08) / _WIDTH, 1 - top / self.sheet.height),
        )  # fmt: skip

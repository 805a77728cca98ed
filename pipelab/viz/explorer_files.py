"""What an explorer gives away as files: a page, pictures, the plan, the report and the timeline."""

import base64
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipelab.errors import InputError
from pipelab.units import plural
from pipelab.viz.explorer_optima import costs_and_optima
from pipelab.viz.html_export import html_page

if TYPE_CHECKING:
    from pipelab.viz.explorer import Explorer

PAGE_TRAITS = (
    "cuts", "value", "num_stages", "num_microbatches", "schedule", "train", "num_ranks", "_hardware", "_hardwares",
    "_workload", "_data", "_presets", "_costs", "_report_state", "_reports", "_colours",
)  # fmt: skip
# More micro-batches than this are set in the notebook: what each number of them costs is on the page.
_MOST_MICROBATCHES = 64
PAGE_REFUSAL = "Saved page: dragging works, Run needs the notebook."


class File(NamedTuple):
    """A file to be.

    Attributes:
        name: What to call it.
        mime: Its type.
        content: Its bytes.
    """

    name: str
    mime: str
    content: bytes


def file_of(explorer: "Explorer", what: str) -> File:
    """What is shown, as a file.

    Args:
        explorer: The explorer.
        what: "html", "png", "svg", "plan", "report" or "trace".

    Raises:
        InputError: There is no such file, or nothing to put in it.
    """
    if what not in _KINDS:
        raise InputError(f"An explorer can be saved as {', '.join(_KINDS)}; {what!r} is none of them.")
    suffix, mime, make = _KINDS[what]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", explorer.plan.graph.model).strip("-")[:60] or "model"
    stages = plural(explorer.num_stages, "stage").replace(" ", "-")
    return File(f"{stem}-{stages}{suffix}", mime, make(explorer))


def file_named(explorer: "Explorer", suffix: str) -> bytes:
    """What is shown, as a file with this ending.

    Raises:
        InputError: It is none of .html, .png and .svg.
    """
    if suffix not in (".html", ".png", ".svg"):
        raise InputError(
            f"An explorer is saved as .html, .png or .svg, not as {suffix or 'a file without an ending'}. Plans and "
            "reports have a save of their own: explorer.plan.save(path), explorer.report.save(path)."
        )
    return file_of(explorer, suffix[1:]).content


def still_picture(explorer: "Explorer") -> str:
    """A PNG of what is shown in base64, for places that show no widgets."""
    return base64.b64encode(_picture("png")(explorer)).decode("ascii")


def _page(explorer: "Explorer") -> bytes:
    state = {name: getattr(explorer, name) for name in PAGE_TRAITS}
    # Another trace would need Python, and another run its timeline.
    state |= {"_connected": False, "_workloads": [], "_run_state": {"phase": "idle"}, "_run_refusal": PAGE_REFUSAL}
    drawn = explorer._shown_report
    state["_reports"] = [run for run in explorer._reports if drawn and run["step_s"] == drawn.step_s][-1:]
    state["_by_microbatches"] = _by_microbatches(explorer)
    title = f"{explorer.plan.graph.model} in {plural(explorer.num_stages, 'stage')}"
    return html_page(title, state, explorer._esm, explorer._css).encode()


def _by_microbatches(explorer: "Explorer") -> dict[int, str]:
    """What would be answered to other numbers of micro-batches, as JSON: to those that divide the batch."""
    graph, now = explorer.plan.graph, explorer.num_microbatches
    most = min(graph.batch_size, _MOST_MICROBATCHES)
    found = {}
    for count in (count for count in range(1, most + 1) if graph.batch_size % count == 0 and count != now):
        costs, optimal = costs_and_optima(graph, explorer._device, count)
        said = {"_presets": {**explorer._presets, "optimal": optimal}, "_costs": costs}
        found[count] = json.dumps(said, separators=(",", ":"))
    return found


def _picture(kind: Literal["png", "svg"]) -> Callable[["Explorer"], bytes]:
    def draw(explorer: "Explorer") -> bytes:
        from pipelab.viz.explorer_figure import explorer_figure  # matplotlib, only where a picture is asked for
        from pipelab.viz.figures import written

        figure = explorer_figure(
            explorer.plan,
            prediction=explorer.timeline,
            report=explorer._shown_report,
            num_microbatches=explorer.num_microbatches,
        )
        return written(figure, kind, dpi=144)

    return draw


def _plan(explorer: "Explorer") -> bytes:
    return (json.dumps(explorer.plan.to_json(), indent=2) + "\n").encode()


def _report(explorer: "Explorer") -> bytes:
    if explorer._shown_report is None:
        raise InputError("There is no report yet: press Run first.")
    return json.dumps(explorer._shown_report.to_json()).encode()


def _trace(explorer: "Explorer") -> bytes:
    timeline = explorer._shown_report.timeline if explorer._shown_report else explorer.timeline
    if timeline is None:
        raise InputError("There is no timeline in seconds yet: choose hardware, or press Run.")
    return json.dumps(timeline.to_chrome_trace()).encode()


_KINDS: dict[str, tuple[str, str, Callable[["Explorer"], bytes]]] = {
    "html": (".html", "text/html", _page),
    "png": (".png", "image/png", _picture("png")),
    "svg": (".svg", "image/svg+xml", _picture("svg")),
    "plan": (".plan.json", "application/json", _plan),
    "report": (".report.json", "application/json", _report),
    "trace": (".trace.json", "application/json", _trace),
}

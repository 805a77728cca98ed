"""The explorer: a model as a ribbon with draggable split points. Draws data; what runs it is handed in.

Python holds the traits and checks them; `static/explorer.js` draws, and computes all figures during a drag.
"""

import base64
import contextlib
import io
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import anywidget
import traitlets

from pipelab.errors import Cancelled, InputError, LaunchError, PipelabError, SplitError
from pipelab.graph import Graph
from pipelab.greedy import charges_of, smallest_budget
from pipelab.hardware import Device, HardwareLike
from pipelab.plan import Plan
from pipelab.policies import threshold, uniform
from pipelab.report import Report
from pipelab.units import plural
from pipelab.viz.explorer_costs import cost_state, one_device
from pipelab.viz.explorer_optima import optimal_presets
from pipelab.viz.explorer_state import MAX_PRESET_STAGES, graph_state, largest_that_works, preset_state, report_state
from pipelab.viz.html_export import html_page
from pipelab.viz.modules import module, stylesheet
from pipelab.viz.palette import STAGE_COLOURS

_MODULE = module("explorer.js")
_STYLES = stylesheet(
    "base.css",
    "verdict.css",
    "ribbon.css",
    "boxes.css",
    "card.css",
    "graph.css",
    "timeline.css",
    "controls.css",
    "menu.css",
    "access.css",
)
_PAGE_TRAITS = ("cuts", "value", "num_stages", "num_microbatches", "_data", "_presets", "_costs", "_report_state")
PAGE_REFUSAL = "Saved page: dragging works, Run needs the notebook."

Progress = Callable[[str, float | None], None]


class Runner(Protocol):
    """Runs plans for an explorer."""

    def run(self, plan: Plan, num_microbatches: int, progress: Progress) -> Report:
        """Run one plan; `progress` takes a sentence and the share that is done, None where nobody knows."""

    def cancel(self) -> None:
        """Stop the run under way; it then raises `Cancelled`."""

    def close(self) -> None:
        """End what was started."""


class Explorer(anywidget.AnyWidget):
    """A model to cut by hand: an ordinary ipywidget.

    Attributes:
        cuts: Op positions of the cuts, live while a divider is dragged. Set it to cut elsewhere.
        value: The same, changed once, when a divider is released: what `observe` and `interactive` want.
        num_stages: Number of stages. Setting it splits anew: the same number of blocks in each stage.
        num_microbatches: In how many micro-batches Run splits the batch.
        hardware: What times rest on: a preset's name, a `Hardware` or a `Measurement`. None for this machine if the
            model was measured; without, there are no times.
        report: What the last run measured, or None.
    """

    _esm = _MODULE
    _css = _STYLES

    cuts = traitlets.Tuple().tag(sync=True)
    value = traitlets.Tuple().tag(sync=True)
    num_stages = traitlets.Int().tag(sync=True)
    num_microbatches = traitlets.Int().tag(sync=True)
    hardware = traitlets.Any(allow_none=True)
    report = traitlets.Instance(Report, allow_none=True)

    _data = traitlets.Dict().tag(sync=True)
    _presets = traitlets.Dict().tag(sync=True)
    _costs = traitlets.Dict().tag(sync=True)
    _colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _connected = traitlets.Bool(True).tag(sync=True)
    _run_state = traitlets.Dict().tag(sync=True)
    _run_refusal = traitlets.Unicode().tag(sync=True)
    _report_state = traitlets.Dict(allow_none=True).tag(sync=True)

    def __init__(
        self, plan: Plan, *, num_microbatches: int, runner: Runner | None, refusal: str = "", notice: str = ""
    ) -> None:
        """An explorer that opens at a plan.

        Args:
            plan: The model, where it is cut at first, and what its times rest on.
            num_microbatches: In how many micro-batches Run splits the batch.
            runner: What runs plans; None turns Run off.
            refusal: Why Run is off, in a sentence.
            notice: What to say at first instead of the verdict.
        """
        self._graph = plan.graph
        self._runner = runner
        self._running = threading.Lock()
        self._hears_browser = False
        self._costed: tuple[Device | None, int] | None = None
        one_device(plan.hardware, plan.graph)  # an unknown name raises before anything is built
        cuts = plan.without_empty_stage().cuts
        super().__init__(
            cuts=cuts,
            value=cuts,
            num_stages=len(cuts) + 1,
            num_microbatches=num_microbatches,
            hardware=plan.hardware,
            _data=graph_state(plan.graph),
            _presets=preset_state(plan.graph),
            _colours=list(STAGE_COLOURS),
            _run_state={"phase": "refused", "text": notice} if notice else {"phase": "idle"},
            _run_refusal=refusal,
            _report_state=None,
        )
        self.on_msg(self._hear)

    @classmethod
    def opening_plan(cls, graph: Graph, num_stages: int) -> tuple[Plan, str]:
        """The plan an explorer opens with, and the refusal if there can be no so many stages."""
        try:
            return uniform(graph, num_stages=num_stages), ""
        except SplitError as error:
            works = largest_that_works(preset_state(graph)["uniform"], num_stages)
            return uniform(graph, num_stages=works), str(error)

    def __repr__(self) -> str:
        return f"Explorer({self._graph.model} in {plural(self.num_stages, 'stage')})"

    @property
    def plan(self) -> Plan:
        """The model as it is cut now."""
        cuts = list(self.cuts)
        policies = (
            name for name, plans in self._presets.items() if plans[self.num_stages : self.num_stages + 1] == [cuts]
        )
        return Plan(self._graph, self.cuts, next(policies, "by hand"), self.hardware)

    def run(self) -> Report:
        """Run the plan as the button does, wait for it, and return the report.

        Raises:
            LaunchError: Run is off, or a run is under way.
        """
        return self._run(self._take_runner(), cancellable=False)

    def save(self, path: str | Path) -> None:
        """Write a page that opens in any browser, without Python and network, and can be dragged."""
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state |= {
            "_colours": self._colours,
            "_connected": False,
            "_run_state": {"phase": "idle"},
            "_run_refusal": PAGE_REFUSAL,
        }
        page = html_page(f"{self._graph.model} in {plural(self.num_stages, 'stage')}", state, _MODULE, _STYLES)
        Path(path).write_text(page, encoding="utf-8")

    def close(self) -> None:
        """Close the widget and end its processes."""
        if self._runner is not None:
            self._runner.close()
        super().close()

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the browser says; ipywidgets calls this."""
        self._hears_browser = True
        try:
            super().set_state(sync_data)
        finally:
            self._hears_browser = False

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The widget, and for places that cannot show it a picture and the table of the plan as it is now."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        data |= {"text/plain": repr(self.plan), "image/png": _picture(self.plan)}
        return data, metadata

    # --- traits -------------------------------------------------------------------------------------

    def _plan_at(self, cuts: Iterable[int]) -> Plan:
        return Plan(self._graph, tuple(cuts), "by hand").without_empty_stage()

    @traitlets.validate("cuts", "value")
    def _check_cuts(self, proposal: Any) -> tuple[int, ...]:
        try:
            return self._plan_at(proposal["value"]).cuts
        except (TypeError, ValueError) as error:
            raise traitlets.TraitError(str(error)) from error

    @traitlets.validate("num_stages")
    def _check_num_stages(self, proposal: Any) -> int:
        count = int(proposal["value"])
        if count != len(self.cuts) + 1:
            try:
                uniform(self._graph, num_stages=count)
            except SplitError as error:
                raise traitlets.TraitError(str(error)) from error
        return count

    @traitlets.validate("num_microbatches")
    def _check_num_microbatches(self, proposal: Any) -> int:
        count = int(proposal["value"])
        if not 1 <= count <= max(1, self._graph.batch_size):
            size = self._graph.batch_size
            raise traitlets.TraitError(f"A batch of {size} splits into 1 to {size} micro-batches, not into {count}.")
        return count

    @traitlets.validate("hardware")
    def _check_hardware(self, proposal: Any) -> HardwareLike:
        hardware: HardwareLike = proposal["value"]
        device = one_device(hardware, self._graph)
        cost_state(self._graph, device, self.num_microbatches)  # raises where it has no times of this model
        return hardware if hardware is None or isinstance(hardware, str) else device  # one per stage is one for all

    @traitlets.observe("hardware", "num_microbatches")
    def _follow_costs(self, _change: Any) -> None:
        """What stages cost now, and the optimum by it, in one message: neither fits the other's past."""
        device = one_device(self.hardware, self._graph)
        asked = (device, self.num_microbatches)
        if self._costed == asked:
            return
        self._costed = asked
        try:
            costs = cost_state(self._graph, device, self.num_microbatches)
        except InputError as error:  # other rows were measured: sizes are compared, and the page says why
            device = None
            costs = {**cost_state(self._graph, None, self.num_microbatches), "refusal": str(error)}
        most = min(MAX_PRESET_STAGES, len(self._graph.legal) + 1)
        presets, optima = optimal_presets(self._graph, device, self.num_microbatches, most)
        with self.hold_sync():
            self._presets = {**self._presets, "optimal": presets}
            self._costs = {**costs, "optima": optima}

    @traitlets.observe("cuts")
    def _follow_cuts(self, change: Any) -> None:
        self.num_stages = len(change["new"]) + 1
        if not self._hears_browser:  # the browser says itself when a divider is released
            self.value = change["new"]

    @traitlets.observe("value")
    def _follow_value(self, change: Any) -> None:
        self.cuts = change["new"]

    @traitlets.observe("num_stages")
    def _follow_num_stages(self, change: Any) -> None:
        if change["new"] != len(self.cuts) + 1:
            self.cuts = self.value = uniform(self._graph, num_stages=change["new"]).cuts

    # --- what the browser asks ----------------------------------------------------------------------

    def _hear(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        match content.get("type"):
            case "run":
                self._run_in_background()
            case "cancel" if self._runner is not None and self._running.locked():
                self._runner.cancel()
            case "threshold":
                self.send({"type": "threshold", **self._threshold(content["max_params"], content["num_stages"])})

    def _threshold(self, max_params: float | None, num_stages: int) -> dict[str, Any]:
        """Where a threshold cuts; None asks for the smallest that keeps the number of stages."""
        try:
            budget = smallest_budget(charges_of(self._graph), num_stages) if max_params is None else max_params
            plan = threshold(self._graph, max_params=budget)
            is_over = max(stage.num_params for stage in plan.stages) > budget
            answer = {
                "cuts": plan.without_empty_stage().cuts,
                "note": "; one op alone reads more" if is_over else "",
            }
            return {**answer, "suggested": budget} if max_params is None else answer
        except SplitError as error:
            return {"error": str(error)}

    # --- running ------------------------------------------------------------------------------------

    def _run_in_background(self) -> None:
        """Run without blocking the kernel, so that dragging goes on and Cancel arrives."""
        try:
            runner = self._take_runner()
        except LaunchError as error:
            self._run_state = _ended(error)
            return

        def work() -> None:
            # Whatever goes wrong is told in the verdict line, with its traceback: there is nobody to raise to.
            with contextlib.suppress(Exception):
                self._run(runner, cancellable=True)

        threading.Thread(target=work, name="pipelab-explorer-run", daemon=True).start()

    def _take_runner(self) -> Runner:
        """The runner, for one run: `_run` gives it back."""
        if self._runner is None:
            raise LaunchError(self._run_refusal)
        if not self._running.acquire(blocking=False):
            raise LaunchError("A run of this explorer is under way: wait for it, or press Cancel.")
        return self._runner

    def _run(self, runner: Runner, *, cancellable: bool) -> Report:
        def progress(text: str, fraction: float | None) -> None:
            self._run_state = {"phase": "running", "text": text, "fraction": fraction, "cancellable": cancellable}

        try:
            progress("Preparing the run…", None)
            report = runner.run(self.plan, self.num_microbatches, progress)
            self._report_state = report_state(report)
            self.report = report
            self._run_state = {"phase": "done", "text": report.verdict}
        except BaseException as error:
            self._run_state = _ended(error)
            raise
        finally:
            self._running.release()
        return report


def _ended(error: BaseException) -> dict[str, Any]:
    """How a run that raised is told."""
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return {"phase": "cancelled", "text": str(error) or "The run was interrupted."}
    text = str(error) if isinstance(error, PipelabError) else f"{type(error).__name__}: {error}"
    first, _, rest = text.partition("\n")
    # An error of ours says what to do, and brings a rank's traceback along; our own calls would only hide that.
    details = rest if isinstance(error, PipelabError) else "".join(traceback.format_exception(error))
    return {"phase": "failed", "text": first, "details": details.strip()}


def _picture(plan: Plan) -> str:
    from pipelab.viz.size_figure import stage_sizes  # matplotlib, only where a picture is asked for

    buffer = io.BytesIO()
    stage_sizes(plan).savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return base64.b64encode(buffer.getvalue()).decode("ascii")

"""The explorer: a model as a ribbon with draggable split points. Draws data; what runs it is handed in.

Python holds the traits and checks them; `static/explorer.js` draws, and computes all figures during a drag.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import traitlets

from pipelab.errors import LaunchError, PipelabError
from pipelab.events import Timeline
from pipelab.files import suffix_of, write_bytes
from pipelab.graph import Graph
from pipelab.hardware import Device, HardwareLike
from pipelab.plan import Plan
from pipelab.policies import uniform
from pipelab.report import Report
from pipelab.schedules import SCHEDULES
from pipelab.simulator import simulate
from pipelab.units import plural
from pipelab.viz.explorer_answers import answer
from pipelab.viz.explorer_checks import check_hardware, check_microbatches, check_ranks, one_of, refused
from pipelab.viz.explorer_costs import one_device
from pipelab.viz.explorer_files import file_named, still_picture
from pipelab.viz.explorer_hardware import hardware_choices, hardware_name, hardware_named, remembered
from pipelab.viz.explorer_optima import costs_and_optima, policy_of
from pipelab.viz.explorer_runs import Runner, Work, ranks_of
from pipelab.viz.explorer_tasks import measured_by, run_by, show_report, show_workload
from pipelab.viz.explorer_workloads import Workload
from pipelab.viz.modules import module, stylesheet
from pipelab.viz.palette import STAGE_COLOURS
from pipelab.viz.still import StillWidget

_MODULE = module("explorer.js")
_STYLES = stylesheet(
    "base.css", "verdict.css", "ribbon.css", "boxes.css", "card.css", "graph.css", "timeline.css", "controls.css",
    "menu.css", "access.css",
)  # fmt: skip


class Explorer(StillWidget):
    """A model to cut by hand: an ordinary ipywidget, whose traits can be observed, linked and set from code.

    Attributes:
        cuts: Op positions of the cuts, live while a divider is dragged. Set it to cut elsewhere.
        value: The same, changed once, when a divider is released: what `observe` and `interactive` want.
        num_stages: Number of stages. Setting it splits anew: the same number of blocks in each stage.
        num_microbatches: In how many micro-batches Run splits the batch.
        hardware: What times rest on: a preset's name, a `Hardware` or a `Measurement`. None for this machine if the
            model was measured; without, there are no times.
        schedule: What the predicted timeline follows: "gpipe", "1f1b", "interleaved_1f1b" or "zb_h1".
        train: Whether that timeline has a backward.
        num_ranks: Ranks of "interleaved_1f1b"; None for half of the stages, or as many as divide them evenly.
        workload: Which of several traces is shown, by name.
        report: What the last run measured, or None.
        reports: All runs, the newest last; only the newest keeps its output.
    """

    still_follows = (
        "value", "_report_state", "hardware", "num_microbatches", "schedule", "train", "num_ranks", "workload",
    )  # fmt: skip

    _esm = _MODULE
    _css = _STYLES

    cuts = traitlets.Tuple().tag(sync=True)
    value = traitlets.Tuple().tag(sync=True)
    num_stages = traitlets.Int().tag(sync=True)
    num_microbatches = traitlets.Int().tag(sync=True)
    schedule = traitlets.Enum(SCHEDULES, "gpipe").tag(sync=True)
    train = traitlets.Bool().tag(sync=True)
    num_ranks = traitlets.Int(None, allow_none=True).tag(sync=True)
    hardware = traitlets.Any(allow_none=True)
    workload = traitlets.Unicode()
    report = traitlets.Instance(Report, allow_none=True)
    reports = traitlets.List(traitlets.Instance(Report))

    _hardware = traitlets.Unicode().tag(sync=True)
    _hardwares = traitlets.List(traitlets.Dict()).tag(sync=True)
    _workload = traitlets.Unicode().tag(sync=True)
    _workloads = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _data = traitlets.Dict().tag(sync=True)
    _presets = traitlets.Dict().tag(sync=True)
    _costs = traitlets.Dict().tag(sync=True)
    _colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _connected = traitlets.Bool(True).tag(sync=True)
    _run_state = traitlets.Dict().tag(sync=True)
    _run_refusal = traitlets.Unicode().tag(sync=True)
    _report_state = traitlets.Dict(allow_none=True).tag(sync=True)
    _reports = traitlets.List(traitlets.Dict()).tag(sync=True)

    def __init__(
        self,
        plan: Plan,
        *,
        num_microbatches: int,
        runner: Runner | None = None,
        refusal: str = "",
        notice: str = "",
        workloads: Mapping[str, Workload] | None = None,
    ) -> None:
        """An explorer that opens at a plan.

        Args:
            plan: The model, where it is cut at first, and what its times rest on.
            num_microbatches: In how many micro-batches Run splits the batch.
            runner: What runs plans; None turns Run off.
            refusal: Why Run is off, in a sentence.
            notice: What to say at first instead of the verdict.
            workloads: Several traces of the model by name instead of runner and refusal; the plan is of the first.
        """
        self._choices = dict(workloads or {"": Workload(plan.graph, runner, refusal)})
        name, self._shown = next(iter(self._choices.items()))
        self._work = Work(lambda state: self.set_trait("_run_state", state))
        self._heard: Any = None  # the cuts the browser says, while it is heard
        self._shown_report: Report | None = None
        self._costed: tuple[int, Device | None, int] | None = None
        self._own: dict[str, Device] = {}
        self._answered: Plan | None = None
        if plan.hardware is not None:
            check_hardware(plan.graph, plan.hardware, num_microbatches)  # raises before anything is built
        cuts = plan.without_empty_stage().cuts
        super().__init__(
            cuts=cuts,
            value=cuts,
            num_stages=len(cuts) + 1,
            num_microbatches=num_microbatches,
            hardware=plan.hardware,
            workload=name,
            _workload=name,
            _workloads=list(workloads or ()),
            _data=self._shown.data,
            _presets=self._shown.presets,
            _colours=list(STAGE_COLOURS),
            _run_state={"phase": "refused", "text": notice} if notice else {"phase": "idle"},
            _run_refusal=self._shown.refusal,
            _report_state=None,
        )
        self.on_msg(self._hear)

    def __repr__(self) -> str:
        return f"Explorer({self._graph.model} in {plural(self.num_stages, 'stage')})"

    # --- what is shown ------------------------------------------------------------------------------

    @property
    def _graph(self) -> Graph:
        return self._shown.graph

    @property
    def _runner(self) -> Runner | None:
        return self._shown.runner

    @property
    def _device(self) -> Device | None:
        """What times rest on; None where there are none."""
        return one_device(self.hardware, self._graph)

    @property
    def plan(self) -> Plan:
        """The model as it is cut now."""
        if self._answered and self._answered.cuts == self.cuts:
            policy = self._answered.policy
        else:
            policy = policy_of(self.cuts, self._presets, self._device, self.num_microbatches)
        return Plan(self._graph, self.cuts, policy, self.hardware)

    @property
    def timeline(self) -> Timeline | None:
        """What is predicted for what is shown now; None where there are no times.

        Example:
            >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(8))).eval()
            >>> explorer = pipelab.explore(pipelab.trace(model, torch.zeros(4, 16)), num_stages=2, hardware="t4-16gb")
            >>> explorer.schedule, explorer.train = "1f1b", True
            >>> explorer.timeline
            Timeline(simulated, t4-16gb, 1F1B training: 2 ranks, 4 micro-batches, ... ms, idle ...%)
            >>> explorer.close()
        """
        device = self._device
        if device is None or "refusal" in self._costs:
            return None
        schedule = self.schedule if self.train else "gpipe"  # without a backward all orders are fill-drain
        plan = self.plan
        return simulate(
            plan,
            schedule=schedule,
            num_microbatches=self.num_microbatches,
            hardware=device,
            train=self.train,
            num_ranks=ranks_of(schedule, plan.num_stages, self.num_ranks),
        )

    def run(self) -> Report:
        """Run the plan as the button does, wait for it, and return the report.

        Raises:
            LaunchError: Run is off, or a run is under way, or the explorer is closed.
        """
        if self.comm is None:
            raise LaunchError("This explorer is closed: make another one with pipelab.explore.")
        try:
            return self._work.now(self._runner, self._run_refusal, run_by(self))
        except (PipelabError, KeyboardInterrupt) as error:
            raise error.with_traceback(None)  # noqa: B904  the same error, without three screens of frames of ours

    def save(self, path: str | Path) -> None:
        """Write what is shown: as a page to drag in any browser without Python and network, or as a picture.

        Args:
            path: A file that ends in .html, .png or .svg.

        Raises:
            InputError: It ends in something else.

        Example:
            >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(4))).eval()
            >>> explorer = pipelab.explore(pipelab.trace(model, torch.zeros(4, 16)), num_stages=2)
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     explorer.save(f"{folder}/split.html")
            >>> explorer.close()
        """
        write_bytes(path, file_named(self, suffix_of(path)), "page or picture")

    def close(self) -> None:
        """Close the widget and end its processes."""
        for shown in self._choices.values():
            if shown.runner is not None:
                shown.runner.close()
        super().close()

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the browser says; ipywidgets calls this. What is not legal is answered with what is."""
        self._heard = sync_data.get("cuts")
        try:
            super().set_state(sync_data)
        except traitlets.TraitError:
            self.send_state([name for name in sync_data if name in self.keys])
        finally:
            self._heard = None

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The widget, and for places that cannot show it a picture and the table of the plan as it is now."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        data |= {"text/plain": repr(self.plan), "image/png": still_picture(self)}
        return data, metadata

    # --- traits: the split --------------------------------------------------------------------------

    @traitlets.validate("cuts", "value")
    def _check_cuts(self, proposal: Any) -> tuple[int, ...]:
        with refused():
            return Plan(self._graph, tuple(proposal["value"])).without_empty_stage().cuts

    @traitlets.validate("num_stages")
    def _check_num_stages(self, proposal: Any) -> int:
        count: int = proposal["value"]
        if count != len(self.cuts) + 1:
            with refused():
                uniform(self._graph, num_stages=count)
        return count

    @traitlets.validate("num_microbatches")
    def _check_num_microbatches(self, proposal: Any) -> int:
        with refused():
            return check_microbatches(self._graph, proposal["value"])

    @traitlets.validate("num_ranks")
    def _check_num_ranks(self, proposal: Any) -> int | None:
        with refused():
            return check_ranks(proposal["value"], len(self.cuts) + 1)

    @traitlets.observe("cuts")
    def _follow_cuts(self, change: Any) -> None:
        self.num_stages = len(change["new"]) + 1
        if list(change["new"]) != self._heard:  # the browser says itself when a divider is released
            self.value = change["new"]

    @traitlets.observe("value")
    def _follow_value(self, change: Any) -> None:
        self.cuts = change["new"]

    @traitlets.observe("num_stages")
    def _follow_num_stages(self, change: Any) -> None:
        if change["new"] != len(self.cuts) + 1:
            self.cuts = self.value = uniform(self._graph, num_stages=change["new"]).cuts
        if self.num_ranks is not None and change["new"] % self.num_ranks:
            self.num_ranks = None

    # --- traits: what times rest on -----------------------------------------------------------------

    @traitlets.validate("hardware")
    def _check_hardware(self, proposal: Any) -> HardwareLike:
        with refused():
            return check_hardware(self._graph, proposal["value"], self.num_microbatches)

    @traitlets.validate("_hardware")
    def _check_hardware_name(self, proposal: Any) -> str:
        known = [choice["name"] for choice in self._hardwares]
        return one_of(known, proposal["value"], "hardware") if known else proposal["value"]

    @traitlets.observe("hardware", "num_microbatches")
    def _follow_costs(self, _change: Any = None) -> None:
        """What stages cost now, and the optimum by it, in one message: neither fits the other's past."""
        device = self._device
        asked = (id(self._graph), device, self.num_microbatches)
        if self._costed == asked:
            return
        self._costed, self._answered = asked, None
        costs, optimal = costs_and_optima(self._graph, device, self.num_microbatches)
        with self.hold_sync():
            self._presets = {**self._presets, "optimal": optimal}
            self._costs = costs

    @traitlets.observe("hardware")
    def _follow_hardware(self, _change: Any = None) -> None:
        device = self._device
        self._own = remembered(self._own, device)
        with self.hold_sync():
            self._hardwares = hardware_choices(self._graph, self._own)
            self._hardware = hardware_name(device)

    @traitlets.observe("_hardware")
    def _follow_hardware_name(self, change: Any) -> None:
        name, now = change["new"], hardware_name(self._device)
        if name != now:
            self.hardware = hardware_named(name, self._own)

    # --- traits: which trace is shown ---------------------------------------------------------------

    @traitlets.validate("workload", "_workload")
    def _check_workload(self, proposal: Any) -> str:
        return one_of(list(self._choices), proposal["value"], "workload")

    @traitlets.observe("workload", "_workload")
    def _follow_workload(self, change: Any) -> None:
        """Show another trace, in one message: cut at the same names, on the same hardware where it can tell."""
        with self.hold_sync(), self.hold_trait_notifications():  # who observes a trait sees all of the other trace
            self.workload = self._workload = change["new"]
            if self._choices[change["new"]] is not self._shown:
                show_workload(self, self._choices[change["new"]])

    # --- what the browser asks ----------------------------------------------------------------------

    def _hear(self, _widget: Any, content: Any, _buffers: Any) -> None:
        match content:
            case {"type": "run", "cuts": list(cuts), "num_microbatches": int(count)}:
                self.value, self.num_microbatches = tuple(cuts), count
                self._work.in_background(self._runner, self._run_refusal, run_by(self))
            case {"type": "measure"}:
                self._measure()
            case {"type": "cancel"}:
                self._work.cancel()
            case {"type": "show_report", "index": None}:
                show_report(self, None)
            case {"type": "show_report", "index": int(index)} if 0 <= index < len(self.reports):
                if self.reports[index].plan.graph is self._graph:
                    show_report(self, self.reports[index])
            case _:
                answered = answer(self, content)
                if answered:
                    message, buffers = answered
                    self.send({**message, "view": content.get("view")}, buffers)

    def _measure(self) -> None:
        self._work.in_background(self._runner, self._run_refusal, measured_by(self))

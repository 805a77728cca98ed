"""What changes an explorer as a whole: a run, a measurement, another report, another trace."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipelab.hardware import Measurement
from pipelab.report import Report
from pipelab.report_words import outcome
from pipelab.units import plural
from pipelab.viz.explorer_hardware import THIS_MACHINE
from pipelab.viz.explorer_runs import Progress, Runner, Task
from pipelab.viz.explorer_state import report_state
from pipelab.viz.explorer_workloads import Workload, carried

if TYPE_CHECKING:
    from pipelab.viz.explorer import Explorer


def run_by(explorer: "Explorer") -> Task[Report]:
    """Run the plan that is shown, and show what came of it."""
    plan, num_microbatches, workload = explorer.plan, explorer.num_microbatches, explorer.workload

    def run(runner: Runner, progress: Progress) -> tuple[Report, str]:
        report = runner.run(plan, num_microbatches, progress)
        explorer.report = report
        explorer.reports = [*(replace(old, output=None) for old in explorer.reports), report]
        explorer._reports = [*explorer._reports, _row(report, workload)]
        if plan.graph is explorer._graph:
            show_report(explorer, report)
        return report, _told(explorer, report, workload)

    return run


def measured_by(explorer: "Explorer") -> Task[Measurement]:
    """Measure this machine; times then rest on it."""
    graph, num_stages = explorer._graph, explorer.num_stages

    def measure(runner: Runner, progress: Progress) -> tuple[Measurement, str]:
        progress("Measuring this machine…", None)
        machine = runner.measure(num_stages, progress)
        if graph is explorer._graph:
            explorer.hardware = machine
        disturbed = machine.other_load.sentence if machine.other_load else ""
        return machine, f"Times are now those of {machine.name}. {disturbed}".strip()

    return measure


def show_report(explorer: "Explorer", report: Report | None) -> None:
    """Draw a run below what is predicted; None for no run."""
    explorer._shown_report = report
    explorer.set_trait("_report_state", report_state(report) if report else None)


def show_workload(explorer: "Explorer", shown: Workload) -> None:
    """Show another trace: cut at the same names, on the same hardware where that has times of it."""
    cuts, notice = carried(explorer._graph, explorer.cuts, shown.graph)
    explorer._shown = shown
    explorer._data, explorer._presets = shown.data, shown.presets
    explorer._own.pop(THIS_MACHINE, None)  # measured with the other trace's ops
    if isinstance(explorer.hardware, Measurement):
        explorer.hardware = None
    explorer.num_microbatches = min(explorer.num_microbatches, max(1, shown.graph.batch_size))
    explorer._follow_costs()
    explorer._follow_hardware()
    explorer.cuts = explorer.value = cuts
    explorer._run_refusal = shown.refusal
    explorer._run_state = {"phase": "refused", "text": notice} if notice else {"phase": "idle"}
    of_it = (report for report in reversed(explorer.reports) if report.plan.graph is shown.graph)
    show_report(explorer, next(of_it, None))


def _told(explorer: "Explorer", report: Report, workload: str) -> str:
    """How a run went, and of what it was where something else is shown by now."""
    if report.plan.graph is not explorer._graph:
        return f"{workload}: {report.verdict}"
    told = outcome(report)  # what disturbed it stands over its timeline
    return told if report.plan.cuts == explorer.cuts else f"The previous split: {told}"


def _row(report: Report, workload: str) -> dict[str, Any]:
    """A run in the list of them."""
    count = report.timeline.num_microbatches
    return {
        "label": f"{plural(report.plan.num_stages, 'stage')}, {plural(count, 'micro-batch')}, {report.plan.policy}",
        "step_s": report.step_s,
        "cuts": list(report.plan.cuts),
        "num_microbatches": count,
        "workload": workload,
    }

"""See a PyTorch model as a pipeline, drag its split points, and run it on real processes.

The flow: `trace` a model, choose a plan by a policy (`optimal`, `equal_size`, `threshold`, `uniform`, `split_at`),
look at it (`explore`, `compare`, `viz`), predict it (`measure`, `simulate`), and `start` it on one process per stage.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelab import peers as peers
    from pipelab import viz as viz
    from pipelab.certificates import Certificate as Certificate
    from pipelab.comparison import Comparison as Comparison
    from pipelab.errors import PipelabError as PipelabError
    from pipelab.events import Event as Event
    from pipelab.events import Timeline as Timeline
    from pipelab.frontiers import Frontier as Frontier
    from pipelab.frontiers import FrontierPoint as FrontierPoint
    from pipelab.frontiers import frontier as frontier
    from pipelab.generation_report import GenerationReport as GenerationReport
    from pipelab.graph import Graph as Graph
    from pipelab.hardware import Hardware as Hardware
    from pipelab.hardware import Measurement as Measurement
    from pipelab.lab import compare as compare
    from pipelab.lab import explore as explore
    from pipelab.landscapes import Landscape as Landscape
    from pipelab.landscapes import landscape as landscape
    from pipelab.launch.controller import Pipeline as Pipeline
    from pipelab.launch.controller import start as start
    from pipelab.launch.probing import measure as measure
    from pipelab.marks import pipe_split as pipe_split
    from pipelab.mixtures import optimal_mix as optimal_mix
    from pipelab.plan import Plan as Plan
    from pipelab.planner import Regret as Regret
    from pipelab.planner import optimal as optimal
    from pipelab.planner import regret as regret
    from pipelab.policies import equal_size as equal_size
    from pipelab.policies import split_at as split_at
    from pipelab.policies import threshold as threshold
    from pipelab.policies import uniform as uniform
    from pipelab.pretrained import trace_pretrained as trace_pretrained
    from pipelab.report import Report as Report
    from pipelab.simulator import simulate as simulate
    from pipelab.split_points import SplitPoint as SplitPoint
    from pipelab.tracing import Trace as Trace
    from pipelab.tracing import trace as trace

__version__ = "0.1.0"

# Loaded on first use: a rank process imports this package and must not pay for widgets or figures.
_HOME = {
    "Certificate": "certificates",
    "Comparison": "comparison",
    "Event": "events",
    "Frontier": "frontiers",
    "FrontierPoint": "frontiers",
    "GenerationReport": "generation_report",
    "Graph": "graph",
    "Hardware": "hardware",
    "Landscape": "landscapes",
    "Measurement": "hardware",
    "PipelabError": "errors",
    "Pipeline": "launch.controller",
    "Plan": "plan",
    "Regret": "planner",
    "Report": "report",
    "SplitPoint": "split_points",
    "Timeline": "events",
    "Trace": "tracing",
    "compare": "lab",
    "equal_size": "policies",
    "explore": "lab",
    "frontier": "frontiers",
    "landscape": "landscapes",
    "measure": "launch.probing",
    "optimal": "planner",
    "optimal_mix": "mixtures",
    "pipe_split": "marks",
    "regret": "planner",
    "simulate": "simulator",
    "split_at": "policies",
    "start": "launch.controller",
    "threshold": "policies",
    "trace": "tracing",
    "trace_pretrained": "pretrained",
    "uniform": "policies",
}

__all__ = [
    "Certificate",
    "Comparison",
    "Event",
    "Frontier",
    "FrontierPoint",
    "GenerationReport",
    "Graph",
    "Hardware",
    "Landscape",
    "Measurement",
    "PipelabError",
    "Pipeline",
    "Plan",
    "Regret",
    "Report",
    "SplitPoint",
    "Timeline",
    "Trace",
    "compare",
    "equal_size",
    "explore",
    "frontier",
    "landscape",
    "measure",
    "optimal",
    "optimal_mix",
    "peers",
    "pipe_split",
    "regret",
    "simulate",
    "split_at",
    "start",
    "threshold",
    "trace",
    "trace_pretrained",
    "uniform",
    "viz",
]


def __getattr__(name: str) -> Any:
    if name in ("peers", "viz"):
        return import_module(f"pipelab.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'pipelab' has no attribute {name!r}")
    value = getattr(import_module(f"pipelab.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

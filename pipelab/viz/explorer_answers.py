"""What the explorer's browser half asks and Python answers: a message of the same type."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pipelab.candidates import Granularity
from pipelab.errors import PipelabError
from pipelab.greedy import charges_of, smallest_budget
from pipelab.planner import optimal
from pipelab.policies import threshold
from pipelab.viz.explorer_files import file_of

if TYPE_CHECKING:
    from pipelab.viz.explorer import Explorer

Answer = tuple[dict[str, Any], list[bytes]]


def answer(explorer: "Explorer", content: Any) -> Answer | None:
    """The answer to a message, with what goes along as bytes; None where the message asks nothing known."""
    kind = content.get("type") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in _ANSWERS:
        return None
    try:
        body, buffers = _ANSWERS[kind](explorer, content)
    except PipelabError as error:
        body, buffers = {"error": str(error)}, []
    except Exception as error:  # of a message that is not as agreed; there is nobody to raise to
        body, buffers = {"error": f"This cannot be answered: {type(error).__name__}: {error}"}, []
    return {"type": kind, **body}, buffers


def _threshold(explorer: "Explorer", content: dict[str, Any]) -> Answer:
    """Where a threshold cuts; `max_params` of None asks for the smallest that keeps the number of stages."""
    graph, asked = explorer.plan.graph, content["max_params"]
    budget = smallest_budget(charges_of(graph), int(content["num_stages"])) if asked is None else float(asked)
    plan = threshold(graph, max_params=budget)
    is_over = max(stage.num_params for stage in plan.stages) > budget
    plan = plan.without_empty_stage()
    explorer._answered = plan
    note = {"cuts": plan.cuts, "note": "; one operator alone holds more" if is_over else ""}
    return ({**note, "suggested": budget} if asked is None else note), []


def _optimal(explorer: "Explorer", content: dict[str, Any]) -> Answer:
    """The best split around pinned cuts: by time where there are times, else by parameters."""
    device, num_stages = explorer._device, int(content["num_stages"])
    plan = optimal(
        explorer.plan.graph,
        num_stages=num_stages,
        objective="time" if device else "params",
        granularity=cast(Granularity, content.get("level", "block")),
        hardware=device,
        num_microbatches=explorer.num_microbatches if device else None,
        pins=[int(pin) for pin in content.get("pins", ())],
    )
    explorer._answered = plan
    return {"cuts": plan.cuts, "num_stages": num_stages}, []


def _export(explorer: "Explorer", content: dict[str, Any]) -> Answer:
    """The plan in the words of another system."""
    exported = explorer.plan.export(content["system"])
    text = exported if isinstance(exported, str) else f"device_map = {json.dumps(exported, indent=4)}"
    return {"system": content["system"], "text": text}, []


def _save(explorer: "Explorer", content: dict[str, Any]) -> Answer:
    """A file."""
    file = file_of(explorer, content["what"])
    return {"what": content["what"], "name": file.name, "mime": file.mime}, [file.content]


_ANSWERS: dict[str, Callable[["Explorer", dict[str, Any]], Answer]] = {
    "threshold": _threshold,
    "optimal": _optimal,
    "export": _export,
    "save": _save,
}

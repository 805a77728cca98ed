"""A plan in the words of other systems: a launch line, a device map, a split spec.

vLLM, Megatron-LM and device maps place whole layers; a cut they cannot express is refused by its name.
"""

import json
from collections.abc import Callable
from itertools import groupby

from pipelab.arguments import shown
from pipelab.errors import SplitError
from pipelab.plan import Plan
from pipelab.split_points import name_of
from pipelab.units import plural


def export(plan: Plan, system: str) -> str | dict[str, int]:
    """The plan as another system takes it.

    Args:
        plan: The plan. An empty last stage is left out.
        system: One of

            - `"vllm"`: the line that starts vLLM with these layers per rank (put the model's id for MODEL);
            - `"megatron"`: Megatron-LM's arguments for this layout (E embedding, t layer, L head and loss);
            - `"device_map"`: a dict from module to stage, for `from_pretrained(device_map=...)` and accelerate's
              `dispatch_model`. Modules that share a tied tensor lie on the first of their stages;
            - `"torch"`: Python that defines `split_spec` for `torch.distributed.pipelining.pipeline`.

    Raises:
        SplitError: The system is unknown, or cannot express the plan: names the cut and what would work.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(6))).eval()
        >>> plan = pipelab.split_at(pipelab.trace(model, torch.zeros(1, 16)), ["1", "3"])
        >>> plan.export("vllm")
        'VLLM_PP_LAYER_PARTITION="1,2,3" vllm serve MODEL --pipeline-parallel-size 3'
        >>> plan.export("device_map")
        {'0': 0, '1': 1, '2': 1, '3': 2, '4': 2, '5': 2}
    """
    if not isinstance(system, str) or system not in _SYSTEMS:
        raise SplitError(
            f"A plan can be exported for {', '.join(map(repr, _SYSTEMS))}; {shown(system)} is none of them."
        )
    return _SYSTEMS[system](plan.without_empty_stage())


def _vllm(plan: Plan) -> str:
    counts = _layers_per_stage(plan, "vLLM")
    for index, count in enumerate(counts):
        if count == 0:
            raise SplitError(
                f"vLLM cannot express this plan: stage {index} ({', '.join(plan.stages[index].labels)}) holds no "
                "layer, and vLLM keeps the embedding with the first layer and the head with the last. Move "
                f"{_cut_text(plan, min(index, len(plan.cuts) - 1))} by a layer, or use export('megatron')."
            )
    partition = ",".join(map(str, counts))
    return f'VLLM_PP_LAYER_PARTITION="{partition}" vllm serve MODEL --pipeline-parallel-size {plan.num_stages}'


def _megatron(plan: Plan) -> str:
    counts = _layers_per_stage(plan, "Megatron-LM")
    stages = ["t" if count == 1 else f"t*{count}" if count else "" for count in counts]
    stages[0] = f"E{stages[0]}"
    stages[-1] += "L"
    layout = "|".join(stages)
    return f'--pipeline-model-parallel-size {plan.num_stages} --pipeline-model-parallel-layout "{layout}"'


def _torch(plan: Plan) -> str:
    _check_between_blocks(plan, "torch.distributed.pipelining's split_spec")
    lines = []
    for index, cut in enumerate(plan.cuts):
        name = name_of(plan.graph, cut)
        calls = sum(call.path == name for call in plan.graph.modules)
        if calls != 1:
            raise SplitError(
                f"torch.distributed.pipelining cannot express {_cut_text(plan, index)}: its split_spec names a module "
                "that runs once, and cuts before every call of it. Call pipe_split() in the model's forward instead."
            )
        lines.append(f"    {json.dumps(name)}: SplitPoint.BEGINNING,\n")
    return (
        "from torch.distributed.pipelining import SplitPoint\n\n"
        f"split_spec = {{\n{''.join(lines)}}}\n"
        "# pipeline() changes the model it is given, so give it a copy:\n"
        "# pipe = pipeline(copy.deepcopy(model), mb_args=..., mb_kwargs=..., split_spec=split_spec)\n"
    )


def _device_map(plan: Plan) -> dict[str, int]:
    _check_between_blocks(plan, "A device map")
    _check_each_block_once(plan)
    stage_of = _stage_of_weights(plan)
    # A module may stand for all in it if that lies on one stage; a list of blocks never does.
    above_blocks = {parent for block in plan.graph.blocks if block.path for parent in _parents(block.path)}
    stages_in: dict[str, set[int]] = {}
    for name, stage in stage_of.items():
        for path in _parents(name):
            stages_in.setdefault(path, set()).add(stage)
    found: dict[str, int] = {}
    for name, stage in stage_of.items():
        whole = (path for path in _parents(name) if len(stages_in[path]) == 1 and path not in above_blocks)
        found[next(whole, name)] = stage
    return found


def _stage_of_weights(plan: Plan) -> dict[str, int]:
    """The stage of every parameter and buffer: the first that reads it or what must lie with it."""
    names = [weight.name for weight in plan.graph.weights if weight.kind != "constant"]
    together = _lie_together(plan, names)
    first: dict[str, int] = {}
    for stage, (start, stop) in enumerate(plan.bounds):
        for op in plan.graph.ops[start:stop]:
            for name in op.weights:
                first.setdefault(together.get(name, name), stage)
    stage_of: dict[str, int] = {}
    stage = 0
    for name in names:
        stage = first.get(together[name], stage)  # what nobody reads goes with what is defined before it
        stage_of[name] = stage
    return stage_of


def _lie_together(plan: Plan, names: list[str]) -> dict[str, str]:
    """A representative per tensor, equal for tensors of one innermost module and for tied ones."""
    owners = {name.rpartition(".")[0] for name in names}
    composite = {parent for owner in owners for parent in ("", *_parents(owner))}
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while (above := leader.setdefault(name, name)) != name:
            name = above
        return name

    for name in names:
        owner = name.rpartition(".")[0]
        if owner not in composite:
            leader[find(name)] = find(owner)
        leader[find(name)] = find(plan.graph.weight_by_name[name].tied_to)
    return {name: find(name) for name in names}


def _parents(path: str) -> list[str]:
    """The modules around a module or tensor, outermost first, without the model itself."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _layers_per_stage(plan: Plan, system: str) -> list[int]:
    """How many of the model's layers each stage holds, for a system that numbers the layers of one list."""
    _check_between_blocks(plan, system)
    _check_each_block_once(plan)
    layers = tuple({block.path: block for block in plan.graph.blocks if block.path}.values())
    numbered = all(block.path.rpartition(".")[2].isdigit() for block in layers)
    lists = list(dict.fromkeys(block.path.rpartition(".")[0] for block in layers)) if numbered else []
    if len(lists) != 1:
        found = f"has {plural(len(lists), 'list')} of layers ({', '.join(lists)})" if lists else "has no list of layers"
        raise SplitError(
            f"{system} cannot express this plan: it shares out the layers of one list, and {plan.graph.model} {found}. "
            "export('device_map') and export('torch') can name any module."
        )
    return [sum(start <= block.start < stop for block in layers) for start, stop in plan.bounds]


def _check_between_blocks(plan: Plan, system: str) -> None:
    edges = [position for position in plan.graph.block_starts if position in plan.graph.cut_point_at]
    for index, cut in enumerate(plan.cuts):
        if cut in plan.graph.block_starts:
            continue
        advice = "The model has no place between blocks."
        if edges:
            near = min(edges, key=lambda position: abs(position - cut))
            advice = f"The nearest place between blocks is {plan.graph.label_at(near)} ({name_of(plan.graph, near)!r})."
        raise SplitError(f"{system} cannot express {_cut_text(plan, index)}: it is not between blocks. {advice}")


def _check_each_block_once(plan: Plan) -> None:
    places = [
        (block.path, stage)
        for block in plan.graph.blocks
        if block.path
        for stage, (start, stop) in enumerate(plan.bounds)
        if start <= block.start < stop
    ]
    for path, group in groupby(sorted(places), key=lambda place: place[0]):
        stages = sorted({stage for _, stage in group})
        if len(stages) > 1:
            raise SplitError(
                f"{path} is one module that runs in stages {', '.join(map(str, stages))}, and a module can be placed "
                "only once. Keep its calls in one stage, or run the plan with pipelab.start."
            )


def _cut_text(plan: Plan, index: int) -> str:
    cut = plan.cuts[index]
    return f"cut {index + 1} ({plan.graph.label_at(cut)}, {name_of(plan.graph, cut)!r})"


_SYSTEMS: dict[str, Callable[[Plan], str | dict[str, int]]] = {
    "vllm": _vllm,
    "megatron": _megatron,
    "device_map": _device_map,
    "torch": _torch,
}

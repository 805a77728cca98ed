"""How other tools would split the same model, for comparison: each policy computed from its description.

They cut between blocks, as the tools do. What lies between two blocks goes with the one before it unless the policy
says otherwise. None of it is the tools' own code; each plan's `policy` names whose rule it is.
"""

from collections.abc import Sequence
from itertools import accumulate

from pipelab.arguments import whole
from pipelab.device_maps import automatic_map, device_of
from pipelab.errors import SplitError
from pipelab.graph import Block, Graph
from pipelab.partitions import block_partition, even_counts, smallest_maximum, smallest_spread
from pipelab.plan import HasGraph, Plan, graph_of
from pipelab.problem import MOST_STAGES
from pipelab.units import plural

__all__ = ["accelerate_auto", "balanced_bytes", "deepspeed", "torchgpipe", "torchtitan", "vllm"]


def vllm(traced: HasGraph | Graph, *, num_stages: int) -> Plan:
    """As vLLM shares layers out (`get_pp_indices`): even, the rest to the middle.

    The embedding lies on the first stage, the head on the last. A rest of r layers goes to the r stages before the
    last one, so the first stage gets one more only where all in between have.

    Args:
        traced: A trace or its graph.
        num_stages: Number of stages.

    Raises:
        SplitError: There are fewer blocks; names how many.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(6))).eval()
        >>> plan = pipelab.peers.vllm(pipelab.trace(model, torch.zeros(1, 16)), num_stages=4)
        >>> [len(stage.labels) for stage in plan.stages]
        [1, 2, 2, 1]
    """
    graph = graph_of(traced)
    starts = _layer_starts(graph)
    _check(graph, "vllm", num_stages, len(starts), "block")
    return _plan(graph, starts, even_counts(len(starts), num_stages, spare_last=True), "vllm (vLLM, even block counts)")


def torchtitan(traced: HasGraph | Graph, *, num_stages: int) -> Plan:
    """As torchtitan shares layers out: even, embedding and head counted as one layer each.

    As its `generate_llm_fqn_per_model_part` with input and output weight 1, its defaults: what does not come out even
    goes to the first stages. With many stages the first may hold the embedding alone, the last the head.

    Args:
        traced: A trace or its graph.
        num_stages: Number of stages.

    Raises:
        SplitError: There are fewer layers; names how many.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(6))).eval()
        >>> plan = pipelab.peers.torchtitan(pipelab.trace(model, torch.zeros(1, 16)), num_stages=4)
        >>> [len(stage.labels) for stage in plan.stages]
        [2, 2, 1, 1]
    """
    graph = graph_of(traced)
    starts = _layer_starts(graph)
    last = graph.blocks[-1]
    if starts and starts[0] in graph.cut_point_at:  # ops before it: the embedding
        starts = [0, *starts]
    if starts and not last.path and _can_cut(graph, last):
        starts = [*starts, last.start]
    _check(graph, "torchtitan", num_stages, len(starts), "layer")
    policy = "torchtitan (torchtitan, embedding and head one layer each)"
    return _plan(graph, starts, even_counts(len(starts), num_stages), policy)


def balanced_bytes(traced: HasGraph | Graph, *, num_stages: int) -> Plan:
    """The split one makes by hand from a list of parameter sizes: the largest stage is as small as can be.

    Each tensor counts once, at its first use, as in `model.parameters()`: a tied head seems to weigh nothing. Nobody's
    tool in particular; exact for what it counts.

    Args:
        traced: A trace or its graph.
        num_stages: Number of stages.

    Raises:
        SplitError: The model has fewer pieces to cut between; names how many.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(6))).eval()
        >>> plan = pipelab.peers.balanced_bytes(pipelab.trace(model, torch.zeros(1, 16)), num_stages=4)
        >>> [len(stage.labels) for stage in plan.stages]
        [1, 1, 2, 2]
    """
    graph = graph_of(traced)
    pieces = _pieces(graph)
    _check(graph, "balanced_bytes", num_stages, len(pieces), "piece")
    seen: set[str] = set()
    weights = []
    for start, stop in pieces:
        new = [w for w in graph.weights_between(start, stop) if w.kind == "parameter" and w.name not in seen]
        seen.update(weight.name for weight in new)
        weights.append(sum(weight.num_bytes for weight in new))
    counts = smallest_maximum(weights, num_stages)
    return _plan(graph, [start for start, _ in pieces], counts, "balanced_bytes (parameter bytes, tied ones once)")


def deepspeed(traced: HasGraph | Graph, *, num_stages: int) -> Plan:
    """As DeepSpeed's `PipelineModule(partition_method="parameters")`: balanced numbers of parameters.

    Its `partition_balanced` makes the heaviest and the lightest stage differ little, stage by stage; that is not always
    the split whose heaviest stage is lightest. A tied parameter counts wherever it is used.

    Args:
        traced: A trace or its graph.
        num_stages: Number of stages.

    Raises:
        SplitError: The model has fewer pieces to cut between; names how many.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(6))).eval()
        >>> plan = pipelab.peers.deepspeed(pipelab.trace(model, torch.zeros(1, 16)), num_stages=4)
        >>> [len(stage.labels) for stage in plan.stages]
        [2, 2, 1, 1]
    """
    graph = graph_of(traced)
    pieces = _pieces(graph)
    _check(graph, "deepspeed", num_stages, len(pieces), "piece")
    counts = smallest_spread([_num_params(graph, *piece) for piece in pieces], num_stages)
    return _plan(graph, [start for start, _ in pieces], counts, 'deepspeed (DeepSpeed, method "parameters")')


def torchgpipe(traced: HasGraph | Graph, *, num_stages: int) -> Plan:
    """As torchgpipe balances: the block partition of Bárány and Grinberg, of the numbers of parameters.

    torchgpipe balances measured times or sizes this way; here the sizes are those of the parameters. A tied parameter
    counts wherever it is used.

    Args:
        traced: A trace or its graph.
        num_stages: Number of stages.

    Raises:
        SplitError: The model has fewer pieces to cut between; names how many.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(6))).eval()
        >>> plan = pipelab.peers.torchgpipe(pipelab.trace(model, torch.zeros(1, 16)), num_stages=4)
        >>> [len(stage.labels) for stage in plan.stages]
        [1, 1, 1, 3]
    """
    graph = graph_of(traced)
    pieces = _pieces(graph)
    _check(graph, "torchgpipe", num_stages, len(pieces), "piece")
    counts = block_partition([_num_params(graph, *piece) for piece in pieces], num_stages)
    return _plan(
        graph, [start for start, _ in pieces], counts, "torchgpipe (torchgpipe, block partition of parameters)"
    )


def accelerate_auto(traced: HasGraph | Graph, *, num_stages: int) -> Plan:
    """As accelerate's `device_map="auto"` on equal devices that hold the model, with the cuts of a pipeline.

    As accelerate 1.15: it fills the devices in turn up to an equal share of the bytes and a buffer, and may leave some
    empty: the plan then has fewer stages, and its `policy` says so. A piece lies where that map puts most of its
    bytes, but never before the piece that feeds it (the map puts a tied head on device 0, with the embedding). What
    transformers 5 does for `from_pretrained(device_map="auto")` is the same with a larger buffer.

    Args:
        traced: A trace or its graph.
        num_stages: Number of devices.

    Raises:
        SplitError: `num_stages` is no number of stages.

    Example:
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(8))).eval()
        >>> plan = pipelab.peers.accelerate_auto(pipelab.trace(model, torch.zeros(1, 16)), num_stages=4)
        >>> [len(stage.labels) for stage in plan.stages], plan.policy
        ([2, 3, 3], 'accelerate_auto (accelerate, device_map="auto", uses 3 of 4)')
    """
    graph = graph_of(traced)
    num_stages = whole(num_stages, "num_stages", most=MOST_STAGES, error=SplitError)
    placed = automatic_map(graph, num_stages)
    cuts: list[int] = []
    device = 0
    for index, (start, stop) in enumerate(_pieces(graph)):
        bytes_on: dict[int, int] = {}
        for weight in graph.weights_between(start, stop):
            if weight.kind != "constant":
                on = device_of(placed, weight.name)
                bytes_on[on] = bytes_on.get(on, 0) + weight.num_bytes
        wanted = max(bytes_on, key=lambda on: bytes_on[on], default=device)
        if index and wanted > device:
            cuts.append(start)
        device = max(device, wanted)
    used = f", uses {len(cuts) + 1} of {num_stages}" if len(cuts) + 1 < num_stages else ""
    return Plan(graph, tuple(cuts), f'accelerate_auto (accelerate, device_map="auto"{used})')


def _pieces(graph: Graph) -> list[tuple[int, int]]:
    """Blocks and what lies between them; one that cannot be cut off from the one before it is part of that."""
    starts = [block.start for index, block in enumerate(graph.blocks) if index == 0 or _can_cut(graph, block)]
    return list(zip(starts, [*starts[1:], len(graph.ops)], strict=True))


def _layer_starts(graph: Graph) -> list[int]:
    layers = [block for block in graph.blocks if block.path]
    return [block.start for index, block in enumerate(layers) if index == 0 or _can_cut(graph, block)]


def _can_cut(graph: Graph, block: Block) -> bool:
    return block.start in graph.cut_point_at


def _num_params(graph: Graph, start: int, stop: int) -> int:
    return sum(weight.num_elements for weight in graph.weights_between(start, stop) if weight.kind == "parameter")


def _check(graph: Graph, policy: str, num_stages: int, most: int, noun: str) -> None:
    num_stages = whole(num_stages, "num_stages", most=MOST_STAGES, error=SplitError)
    if num_stages > max(most, 1):
        raise SplitError(
            f"{policy} cannot make {num_stages} stages of {graph.model}: it shares out {plural(most, noun)}. The "
            f"largest number of stages that works is {max(most, 1)}; equal_size, threshold, split_at and "
            'optimal(granularity="op") can cut inside a block.'
        )


def _plan(graph: Graph, starts: Sequence[int], counts: Sequence[int], policy: str) -> Plan:
    """The plan whose stages take these numbers of consecutive pieces."""
    return Plan(graph, tuple(starts[first] for first in accumulate(counts[:-1])), policy)

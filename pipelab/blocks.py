"""Finds the pieces people cut a model around: its repeated layers, and what lies between them."""

from collections.abc import Mapping, Sequence

from pipelab.graph import Block, ModuleCall

# A stage of a vision model is one list of layers; a transformer block also holds lists (experts), but runs
# much besides. The share of a layer's ops that a list inside it must run to be the finer list of blocks.
_NESTED_SHARE = 0.8
# Layers of several kinds take turns in hybrid models; the share of a model's ops that a list of them must run.
_MIXED_SHARE = 0.5


def find_blocks(
    calls: Sequence[ModuleCall], has_weights: Sequence[bool], args: Sequence[Sequence[int]]
) -> tuple[tuple[Block, ...], str]:
    """The blocks of a model, covering all its ops, and the prefix their labels leave out.

    Repeated layers are the elements of the outermost lists of like modules ("h.0", "h.1", ...), or of unlike ones
    that are most of the model; where an element is little more than a list itself, that one's. A model without
    such a list is taken apart into its top-level children.

    Args:
        calls: Every module call, outer before inner.
        has_weights: Per op, whether it reads a weight. Ops outside any block that read none (a `cat`
            between two blocks) belong to the block before them.
        args: Per op, the values it reads, by the op that made them; the model's inputs are negative.
    """
    num_ops = len(has_weights)
    paths = _repeated(calls, args) or _children(calls)
    chosen: list[ModuleCall] = []
    for call in sorted((c for c in calls if c.path in paths), key=lambda c: (c.start, -c.stop)):
        if not chosen or call.start >= chosen[-1].stop:
            chosen.append(call)
    prefix = _prefix([call.path for call in chosen])
    blocks: list[Block] = []
    edge = 0
    for call in chosen:
        between = _between(calls, edge, call.start, chosen) if blocks else "embed"
        start = _fill(blocks, calls, edge, call.start, has_weights, between.removeprefix(prefix))
        label = call.path.removeprefix(prefix) + (f" (call {call.call + 1})" if call.call else "")
        blocks.append(Block(call.path, label, start, call.stop))
        edge = call.stop
    if not blocks:
        return (Block("", "model", 0, num_ops),) if num_ops else (), ""
    _fill(blocks, calls, edge, num_ops, has_weights, "head")
    return tuple(blocks), prefix


def _fill(
    blocks: list[Block], calls: Sequence[ModuleCall], start: int, stop: int, has_weights: Sequence[bool], label: str
) -> int:
    """Give the ops between two blocks a place; returns where the next block starts."""
    if start == stop:
        return stop
    first = start
    if any(has_weights[start:stop]):
        if blocks:  # a function of the block's output, up to the next module, is still the block's
            first = min((call.start for call in calls if start <= call.start < stop), default=start)
        number = sum(block.label.partition(" ")[0] == label for block in blocks)
        blocks.append(Block("", f"{label} {number + 1}" if number else label, first, stop))
        start, stop = start, first
    elif not blocks:
        return start
    if start < stop:
        index = -1 if first == start else -2
        last = blocks[index]
        blocks[index] = Block(last.path, last.label, last.start, stop)
    return blocks[-1].stop


def _between(calls: Sequence[ModuleCall], start: int, stop: int, chosen: Sequence[ModuleCall]) -> str:
    """What stands between two blocks: a module or list of modules that holds none of them; else "mid"."""
    paths = [call.path for call in calls if start <= call.start and call.stop <= stop]
    shared = paths[0].split(".") if paths else []
    for path in paths:
        while path.split(".")[: len(shared)] != shared:
            shared.pop()
    path = ".".join(shared)
    return path if path and not any(_related(path, call.path) for call in chosen) else "mid"


def list_elements(calls: Sequence[ModuleCall]) -> list[ModuleCall]:
    """The elements of lists that are never called themselves, such as the layers of a list of `ModuleDict`s.

    Each counts as one call from its first module's first op to its last module's last, if nothing else runs there.
    """
    called = {call.path for call in calls}
    spans: dict[tuple[str, int], list[int]] = {}
    for call in calls:
        path = _parent(call.path)
        while path and path not in called:
            if path.rpartition(".")[2].isdigit():
                span = spans.setdefault((path, call.call), [call.start, call.stop])
                span[:] = min(span[0], call.start), max(span[1], call.stop)
            path = _parent(path)
    torn = {
        path
        for (path, _), (start, stop) in spans.items()
        for call in calls
        if start < call.stop and call.start < stop and not _related(path, call.path)
    }
    return [ModuleCall(path, call, "", *span) for (path, call), span in spans.items() if path not in torn]


def _related(path: str, other: str) -> bool:
    """Whether one lies inside the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _lists(calls: Sequence[ModuleCall]) -> dict[str, dict[str, str]]:
    """Numbered children by their parent: {parent: {path: class name}}."""
    lists: dict[str, dict[str, str]] = {}
    for call in calls:
        if call.path.rpartition(".")[2].isdigit():
            lists.setdefault(_parent(call.path), {})[call.path] = call.class_name
    return lists


def _repeated(calls: Sequence[ModuleCall], args: Sequence[Sequence[int]]) -> set[str]:
    paths = {call.path for call in calls}
    composite = {_parent(path) for path in paths}
    num_ops: dict[str, int] = {}
    for call in calls:
        num_ops[call.path] = num_ops.get(call.path, 0) + call.stop - call.start
    most = _MIXED_SHARE * max(call.stop for call in calls) if calls else 0
    lists = {
        parent: elements
        for parent, elements in _lists(calls).items()
        if (len(set(elements.values())) == 1 and (len(elements) > 1 or composite & set(elements)))
        or (set(elements) <= composite and sum(num_ops[path] for path in elements) > most)
    }
    found: set[str] = set()

    def choose(element: str) -> None:
        inner = [
            path
            for parent in lists
            if parent.startswith(element + ".") or (parent == element and composite.issuperset(lists[parent]))
            for path in lists[parent]
            if _outermost(path, lists, element)
        ]
        share = sum(num_ops[path] for path in inner)
        if inner and share >= _NESTED_SHARE * num_ops[element] and not _leaps(element, inner, calls, args):
            for path in inner:
                choose(path)
        else:
            found.add(element)

    for elements in lists.values():
        for element in elements:
            if _outermost(element, lists, ""):
                choose(element)
    return found - _small_heads(found, composite, num_ops)


def _leaps(element: str, inner: Sequence[str], calls: Sequence[ModuleCall], args: Sequence[Sequence[int]]) -> bool:
    """Whether a residual path leads around the lists in an element: then it is one layer, not a list of them.

    The convolutions of a ResNet's layer are such a list. Its input is read by them, and again when they are done.
    """
    whole = next(call for call in calls if call.path == element)
    spans = [c for c in calls if c.path in inner and whole.start <= c.start < whole.stop]
    first_read: dict[int, int] = {}
    for index in range(whole.start, whole.stop):
        beside = not any(span.start <= index < span.stop for span in spans)
        for value in args[index]:
            first = first_read.setdefault(value, index)
            if beside and any(first < span.stop <= index and value < span.start for span in spans):
                return True
    return False


def _small_heads(found: set[str], composite: set[str], num_ops: Mapping[str, int]) -> set[str]:
    """Lists of single modules that are less than a layer of the others: those of a head, or of an embedding."""
    layers = found & composite
    least = min((num_ops[path] for path in layers), default=0)
    singles: dict[str, set[str]] = {}
    for path in found - layers:
        singles.setdefault(_parent(path), set()).add(path)
    return {path for paths in singles.values() if sum(num_ops[p] for p in paths) < least for path in paths}


def _outermost(path: str, lists: dict[str, dict[str, str]], within: str) -> bool:
    """Whether no ancestor of an element, up to `within`, is itself an element."""
    above = _parent(path)
    while above and above != within:
        if above in lists.get(_parent(above), {}):
            return False
        above = _parent(above)
    return True


def _children(calls: Sequence[ModuleCall]) -> set[str]:
    """The model's children, those in a list or dict included; an only child is opened in turn."""
    paths = {call.path for call in calls}
    top = ""
    while True:
        within = {path for path in paths if path.startswith(f"{top}." if top else "") and path != top}
        children = {path for path in within if not _has_ancestor(path, within)}
        if len(children) != 1 or children == within:
            return children
        (top,) = children


def _has_ancestor(path: str, paths: set[str]) -> bool:
    while path := _parent(path):
        if path in paths:
            return True
    return False


def _prefix(paths: Sequence[str]) -> str:
    """What all block paths begin with, less the name of the list itself: "transformer." of "transformer.h.0"."""
    if not paths:
        return ""
    shared = _parent(paths[0]).split(".")
    for path in paths:
        parts = _parent(path).split(".")
        while parts[: len(shared)] != shared:
            shared.pop()
    return ".".join(shared[:-1]) + "." if len(shared) > 1 else ""

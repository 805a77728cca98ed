"""Finds the pieces people cut a model around: its repeated layers, and what lies between them."""

from collections.abc import Sequence

from pipelab.graph import Block, ModuleCall

# A stage of a vision model is one list of layers; a transformer block also holds lists (experts), but runs
# much besides. The share of a layer's ops that a list inside it must run to be the finer list of blocks.
_NESTED_SHARE = 0.8


def find_blocks(calls: Sequence[ModuleCall], has_weights: Sequence[bool]) -> tuple[tuple[Block, ...], str]:
    """The blocks of a model, covering all its ops, and the prefix their labels leave out.

    Repeated layers are the elements of the outermost lists of like modules ("h.0", "h.1", ...); a model
    without such a list is taken apart into its top-level children.

    Args:
        calls: Every module call, outer before inner.
        has_weights: Per op, whether it reads a weight. Ops outside any block that read none (a `cat`
            between two blocks) belong to the block before them.
    """
    num_ops = len(has_weights)
    paths = _repeated(calls) or _children(calls)
    chosen: list[ModuleCall] = []
    for call in sorted((c for c in calls if c.path in paths), key=lambda c: (c.start, -c.stop)):
        if not chosen or call.start >= chosen[-1].stop:
            chosen.append(call)
    prefix = _prefix([call.path for call in chosen])
    blocks: list[Block] = []
    edge = 0
    for call in chosen:
        start = _fill(blocks, calls, edge, call.start, has_weights, "mid" if blocks else "embed")
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
        number = sum(block.label.startswith(label) for block in blocks)
        blocks.append(Block("", f"{label} {number + 1}" if number else label, first, stop))
        start, stop = start, first
    elif not blocks:
        return start
    if start < stop:
        index = -1 if first == start else -2
        last = blocks[index]
        blocks[index] = Block(last.path, last.label, last.start, stop)
    return blocks[-1].stop


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


def _repeated(calls: Sequence[ModuleCall]) -> set[str]:
    paths = {call.path for call in calls}
    composite = {_parent(path) for path in paths}
    lists = {
        parent: elements
        for parent, elements in _lists(calls).items()
        if len(set(elements.values())) == 1 and (len(elements) > 1 or composite & set(elements))
    }
    num_ops: dict[str, int] = {}
    for call in calls:
        num_ops[call.path] = num_ops.get(call.path, 0) + call.stop - call.start
    found: set[str] = set()

    def choose(element: str) -> None:
        inner = [
            path
            for parent in lists
            if parent.startswith(element + ".")
            for path in lists[parent]
            if _outermost(path, lists, element)
        ]
        if inner and sum(num_ops[path] for path in inner) >= _NESTED_SHARE * num_ops[element]:
            for path in inner:
                choose(path)
        else:
            found.add(element)

    for elements in lists.values():
        for element in elements:
            if _outermost(element, lists, ""):
                choose(element)
    return found


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

"""A cut by name: how a position is written in a file, and found again in another trace of the model.

- `transformer.h.3`: before the first op of that module;
- `block@1`: before the first op of its second call;
- `transformer.h.3.mlp:aten.mul.Tensor`: before the first `mul` that module itself runs;
- `block@1:aten.add.Tensor#2`: before the third `add` of its second call.
"""

import difflib
import re
from enum import Enum

from pipelab.arguments import shown
from pipelab.errors import SplitError
from pipelab.graph import Graph

_LONGEST_NAME = 10_000
_PATH = re.compile(r"[^:@]*")
_PLACE = re.compile(r"(@(?P<call>[0-9]{1,9}))?(:(?P<target>[^#]+)(#(?P<ordinal>[0-9]{1,9}))?)?\Z")


class SplitPoint(Enum):
    """Which end of a module to cut at, as in `torch.distributed.pipelining`.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
        >>> traced = pipelab.trace(model, torch.zeros(6, 4))
        >>> pipelab.split_at(traced, {"0": pipelab.SplitPoint.END}).split_points
        ('1',)
    """

    BEGINNING = "beginning"
    END = "end"


def name_of(graph: Graph, position: int) -> str:
    """The name of a cut.

    A cut where a module's call begins is named by the outermost such module; any other by the op after it.
    """
    for call in graph.calls_by_start.get(position, ()):
        if call.path:
            return call.path + (f"@{call.call}" if call.call else "")
    op = graph.ops[position]
    call_text = f"@{op.call}" if op.call else ""
    ordinal = f"#{op.ordinal}" if op.ordinal else ""
    return f"{op.module}{call_text}:{op.target}{ordinal}"


def resolve(graph: Graph, name: str, end: SplitPoint = SplitPoint.BEGINNING) -> int:
    """The position a name stands for.

    Args:
        graph: The traced model.
        name: A name as `name_of` writes it.
        end: `END` of a module is the position after its last op.

    Raises:
        SplitError: The graph has no such place, or the place is not a legal cut.
    """
    path, match = _parts(graph, name)
    call = int(match["call"] or 0)
    if match["target"]:
        position = _op_position(graph, name, path, call, match["target"], int(match["ordinal"] or 0))
    else:
        found = [c for c in graph.modules if c.path == path and c.call == call]
        if not found:
            raise SplitError(f"{graph.model} ran no module {shown(name)}.{_similar(graph, path)}")
        position = found[0].start if end is SplitPoint.BEGINNING else found[0].stop
    check_legal(graph, position, name)
    return position


def _parts(graph: Graph, name: str) -> tuple[str, re.Match[str]]:
    """The module path of a name, and what follows it. A module's own name may hold "@", ":" and "#"."""
    if len(name) > _LONGEST_NAME:
        raise SplitError(f"{shown(name)} is not the name of a cut: it is too long.")
    unknown = _PATH.match(name)
    assert unknown is not None
    for end in range(len(name), -1, -1):
        match = _PLACE.match(name, end)
        if match and (name[:end] in graph.module_paths or end == unknown.end()):
            return name[:end], match
    raise SplitError(f"{shown(name)} is not the name of a cut: write 'module', 'module@call' or 'module:op#number'.")


def check_legal(graph: Graph, position: int, name: str | None = None) -> None:
    """Raise a `SplitError` that names the nearest legal cut unless this position is one."""
    if position in graph.cut_point_at:
        return
    asked = f"{shown(name)} (position {position})" if name else f"Position {shown(position)}"
    where = f" ({graph.label_at(position)})" if 0 <= position < len(graph.ops) else ""
    if not graph.legal:
        raise SplitError(f"{asked} is not a legal cut: {graph.model} has none.")
    near = min(graph.legal, key=lambda legal: abs(legal - position))
    if position <= 0 or position >= len(graph.ops):
        reason = f"a cut lies between two of the {len(graph.ops)} ops"
    else:
        reason = f"it would separate values that share memory or one list{where}"
    raise SplitError(
        f"{asked} is not a legal cut: {reason}. The nearest legal one is {near}, "
        f"{graph.label_at(near)} ({name_of(graph, near)!r})."
    )


def _op_position(graph: Graph, name: str, path: str, call: int, target: str, ordinal: int) -> int:
    for index, op in enumerate(graph.ops):
        if (op.module, op.call, op.target, op.ordinal) == (path, call, target, ordinal):
            return index
    inside = [c for c in graph.modules if c.path == path and c.call == call]
    if not inside:
        raise SplitError(f"{graph.model} ran no module {shown(path)}.{_similar(graph, path)}")
    starts = [p for p in graph.legal if inside[0].start <= p <= inside[0].stop] or list(graph.legal)
    near = f" A legal cut near it is {name_of(graph, starts[0])!r}." if starts else ""
    raise SplitError(f"{graph.model} has no op {shown(name)}: that call ran no such op.{near}")


def _similar(graph: Graph, path: str) -> str:
    known = list(dict.fromkeys(call.path for call in graph.modules if call.path))
    close = difflib.get_close_matches(path, known, n=3, cutoff=0.3) or known[:3]
    return f" Similar: {', '.join(map(repr, close))}." if close else ""

"""Where accelerate's `device_map="auto"` would put a model's modules, on equal devices that hold it all.

Written anew from what accelerate 1.15 documents and does: the device memory is set to an equal share of the bytes and
a buffer, the modules are then laid on the devices in the order of their definition.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipelab.graph import Graph


@dataclass(frozen=True)
class _Tree:
    """The modules that own tensors.

    Attributes:
        num_bytes: Bytes of parameters and buffers, per module and per tensor; tied tensors under their first name.
        children: Submodules and tensors of each module, in the order of their definition.
        whole: Modules that are never split.
        ties: The names of each tensor that has several.
    """

    num_bytes: dict[str, int]
    children: dict[str, tuple[str, ...]]
    whole: frozenset[str]
    ties: tuple[tuple[str, ...], ...]

    def is_module(self, name: str) -> bool:
        return name in self.children

    def can_split(self, name: str) -> bool:
        """Whether it has submodules that may part."""
        return name not in self.whole and any(map(self.is_module, self.children.get(name, ())))

    def largest(self, names: Iterable[str]) -> int:
        """Bytes of the largest module in these that cannot be split."""
        sizes = [0]
        for name in names:
            inner = filter(self.is_module, self.children.get(name, ()))
            sizes.append(self.largest(inner) if self.can_split(name) else self.num_bytes[name])
        return max(sizes)

    def tied_outside(self, name: str) -> list[str]:
        """The other names, outside this module, of tensors that it holds."""
        groups = [[(tensor, _within(tensor, name)) for tensor in group] for group in self.ties]
        return [
            tensor for group in groups if any(inside for _, inside in group) for tensor, inside in group if not inside
        ]


def automatic_map(graph: Graph, num_devices: int) -> dict[str, int]:
    """The device of each module, outermost modules that lie on one device, by accelerate's greedy pass.

    Blocks are what it must not split. Device 0 keeps room for the largest module still to come; the last takes all
    that is left. Modules with tied tensors go together.
    """
    tree = _tree_of(graph)
    share = tree.num_bytes[""] // num_devices + _buffer(graph, tree)
    todo, placed = list(tree.children.get("", ())), dict[str, int]()
    device = used = 0
    while todo:
        name = todo.pop(0)
        size = tree.num_bytes[name]
        room = share - used - (tree.largest(todo) if device == 0 else 0)
        partners = _partners(tree, name, todo)
        with_ties = size + sum(tree.num_bytes[module] - tree.num_bytes[tensor] for tensor, module in partners)
        last = device == num_devices - 1
        if last or with_ties <= room:
            together = dict.fromkeys([name, *(module for _, module in partners)], device)
            placed.update(together)
            todo = [module for module in todo if module not in together]
            used += with_ties
        elif size <= room and (large := [module for _, module in partners if tree.can_split(module)]):
            todo = [name, *_opened(tree, todo, large[0])]
        elif size >= room and tree.can_split(name):
            todo = [*tree.children[name], *todo]
        else:
            device, used, todo = device + 1, 0, [name, *todo]
    return placed


def device_of(placed: dict[str, int], name: str) -> int:
    """The device of a module or tensor, which its own entry or that of a module around it tells."""
    while name not in placed:
        name = name.rpartition(".")[0]
    return placed[name]


def _tree_of(graph: Graph) -> _Tree:
    num_bytes: dict[str, int] = defaultdict(int)
    children: dict[str, dict[str, None]] = {}
    ties: dict[str, list[str]] = {}
    for weight in graph.weights:
        if weight.kind == "constant":  # of the program, not of a module
            continue
        ties.setdefault(weight.tied_to, []).append(weight.name)
        path = weight.name
        while path:
            num_bytes[path] += weight.num_bytes if weight.tied_to == weight.name else 0
            inner, path = path, path.rpartition(".")[0]
            children.setdefault(path, {})[inner] = None
        num_bytes[""] += weight.num_bytes if weight.tied_to == weight.name else 0
    return _Tree(
        num_bytes,
        {path: tuple(inner) for path, inner in children.items()},
        frozenset(_whole(graph)),
        tuple(tuple(names) for names in ties.values() if len(names) > 1),
    )


def _whole(graph: Graph) -> Iterator[str]:
    """Blocks, and classes of the name that transformers lists besides them for BERT, ViT and their like."""
    yield from (block.path for block in graph.blocks if block.path)
    yield from (call.path for call in graph.modules if call.class_name.endswith("Embeddings"))


def _buffer(graph: Graph, tree: _Tree) -> int:
    """What each device may hold above its share: 1.25 blocks, or 1.25 modules of mean size if that is more."""
    class_of = {call.path: call.class_name for call in graph.modules}
    first = {class_of.get(path): path for path in reversed(tree.children) if path in tree.whole}
    blocks = [tree.num_bytes[path] for path in first.values()]
    final = [
        size
        for path, inner in tree.children.items()
        if not any(map(tree.is_module, inner)) and (size := tree.num_bytes[path])
    ]
    return int(1.25 * max([*blocks, int(sum(final) / max(len(final), 1))]))


def _partners(tree: _Tree, name: str, todo: list[str]) -> list[tuple[str, str]]:
    """The tensors tied to those of a module, each with the module still to be placed that holds it."""
    return [
        (tensor, module)
        for tensor in tree.tied_outside(name)
        if (module := next((module for module in todo if _within(tensor, module)), None))
    ]


def _opened(tree: _Tree, todo: list[str], name: str) -> list[str]:
    """The list with a module's children in its place."""
    place = todo.index(name)
    return [*todo[:place], *tree.children[name], *todo[place + 1 :]]


def _within(name: str, module: str) -> bool:
    return f"{name}.".startswith(f"{module}.")

"""Inputs of every kind on real ranks: what the model itself answers, or a refusal in words, and the ranks stay."""

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from hostile import VALUES, told
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import pipelab
from pipelab import PipelabError

ROWS = 6
Pair = namedtuple("Pair", "left right")


@dataclass
class Box:
    values: Tensor
    factors: Tensor


class Marked(Tensor):
    """A tensor of a class of the user's own."""


torch.export.register_dataclass(Box)


class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))


class Nested(nn.Module):
    """Containers of every kind in and out, a number, a text and None; the last op reads the first input again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, given: dict[str, Any], pair: tuple[Tensor, Tensor], *, box: Box, scale: float = 2.0) -> Any:
        hidden = self.first(given["x"]) * scale
        late = self.last(hidden + given["more"][0]) + box.values * box.factors + given["x"]
        return {
            "late": late,
            "pair": Pair(hidden, pair[1]),
            "none": None,
            "list": [late[:, :2], (given["x"], "text", 3)],
        }


class Dtypes(nn.Module):
    def forward(self, flags: Tensor, small: Tensor, half: Tensor, brain: Tensor, wide: Tensor, waves: Tensor) -> Any:
        halves = half * 2 + 1
        both = flags & ~flags | flags
        return both, small + small, halves, (brain * brain).clone(), wide + wide.sum(1, keepdim=True), waves * waves


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(16, 4), nn.Linear(4, 16, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids).tanh())


class Fixed(nn.Module):
    """Its batch cannot be another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).reshape(ROWS, 2, 2).sum(0).relu()


class Writes(nn.Module):
    """Writes into its input, and returns it twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        hidden = self.layer(x.mul_(2.0)).relu()
        return x, hidden, x[:, :2]


def floats(rows: int) -> Tensor:
    return torch.randn(rows, 4)


def flags(rows: int) -> Tensor:
    return torch.rand(rows, 4) > 0.5


Call = tuple[tuple[Any, ...], dict[str, Any]]
FORMS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Call]]] = {
    "plain": (Plain, lambda n: ((floats(n),), {})),
    "nested": (Nested, lambda n: (({"x": floats(n), "more": [floats(n)]}, (floats(n), floats(n))),
                                  {"box": Box(floats(n), floats(n)), "scale": 2.0})),
    "dtypes": (Dtypes, lambda n: ((flags(n), floats(n).char(), floats(n).half(), floats(n).bfloat16(),
                                   floats(n).double(), torch.randn(n, 4, dtype=torch.complex64)), {})),
    "tied": (Tied, lambda n: ((torch.randint(16, (n, 3)),), {})),
    "fixed": (Fixed, lambda n: ((floats(n),), {})),
    "writes": (Writes, lambda n: ((floats(n),), {})),
}  # fmt: skip

# Another form of the same numbers, which the model itself takes as well.
HARMLESS: dict[str, Callable[[Tensor], Any]] = {
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "transposed": lambda x: x.t().contiguous().t(),
    "wants gradients": lambda x: x.detach().requires_grad_() if x.is_floating_point() else x,
    "parameter": lambda x: nn.Parameter(x, requires_grad=False),
    "its own class": lambda x: x.as_subclass(Marked),
    "not a number": lambda x: x * float("nan") if x.is_floating_point() else x,
    "infinite": lambda x: x / 0 if x.is_floating_point() else x,
    "conjugate": lambda x: x.conj() if x.is_complex() else x,
}
STRANGE: dict[str, Callable[[Tensor], Any]] = {
    "all rows the same": lambda x: x[:1].expand_as(x),
    "other rows": lambda x: x[:2],
    "no rows": lambda x: x[:0],
    "no columns": lambda x: x[:, :0],
    "another dimension": lambda x: x[..., None],
    "a dimension less": lambda x: x[0],
    "no dimension": lambda x: torch.tensor(1.0),
    **{str(dtype): lambda x, dtype=dtype: x.to(dtype)
       for dtype in (torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex128)},
    "sparse": lambda x: x.to_sparse(),
    "rows compressed": lambda x: x.to_sparse_csr(),
    "quantised": lambda x: torch.quantize_per_tensor(torch.randn(ROWS, 4), 0.1, 0, torch.qint8),
    "nested": lambda x: torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)]),
    "without values": lambda x: x.to("meta"),
    "numpy": lambda x: torch.randn(ROWS, 4).numpy(),
    "list of numbers": lambda x: torch.randn(ROWS, 4).tolist(),
    "list": lambda x: [x],
    "number": lambda x: 1.0,
    "text": lambda x: "x",
    "none": lambda x: None,
    "object": lambda x: object(),
}  # fmt: skip
OTHER_ARGUMENTS: dict[str, Callable[[Call], Call]] = {
    "none": lambda call: ((), {}),
    "one more": lambda call: ((*call[0], floats(ROWS)), call[1]),
    "unknown name": lambda call: (call[0], {**call[1], "unknown": floats(ROWS)}),
    "number changed": lambda call: (call[0], {**call[1], "scale": 3.0}),
    "whole number": lambda call: (call[0], {**call[1], "scale": 2}),
    "number that is none": lambda call: (call[0], {**call[1], "scale": float("nan")}),
    "array for a number": lambda call: (call[0], {**call[1], "scale": torch.ones(2).numpy()}),
    "list for a tuple": lambda call: (tuple(list(a) if isinstance(a, tuple) else a for a in call[0]), call[1]),
    "ordered dict": lambda call: (tuple(OrderedDict(a) if isinstance(a, dict) else a for a in call[0]), call[1]),
}


class Ranks:
    """A model of a form, and ranks that run it: started when first asked for."""

    def __init__(self, form: str) -> None:
        torch.manual_seed(0)
        make, self.call = FORMS[form]
        self.model = make().eval()
        args, kwargs = self.call(ROWS)
        self.traced = pipelab.trace(self.model, *deepcopy(args), **deepcopy(kwargs))
        legal = self.traced.graph.legal
        self.pipe = pipelab.start(self.traced, pipelab.split_at(self.traced, [legal[len(legal) // 2]]), device="cpu")
        self.pids = self.pipe.pids

    def answer(self, call: Call, num_microbatches: int | None = 1) -> Any:
        """What the ranks make of a call."""
        args, kwargs = call
        if num_microbatches == 1:
            return self.pipe(*args, **kwargs)
        return self.pipe.run(*args, num_microbatches=num_microbatches, repeats=1, **kwargs).output

    def check(self, call: Call, num_microbatches: int | None = 1) -> None:
        """Assert that they answer as the model does."""
        mine = pytree.tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, call)
        got = self.answer(call, num_microbatches)
        with torch.no_grad():
            assert_same(got, self.model(*mine[0], **mine[1]))

    def check_well(self) -> None:
        """Assert that the same processes give a right answer to a good call."""
        self.check(self.call(ROWS))
        assert self.pipe.pids == self.pids


def assert_same(got: Any, want: Any) -> None:
    """Containers, dtypes, shapes and values."""
    leaves, spec = pytree.tree_flatten(got)
    expected, expected_spec = pytree.tree_flatten(want)
    assert spec == expected_spec
    for leaf, other in zip(leaves, expected, strict=True):
        if isinstance(other, Tensor):
            torch.testing.assert_close(leaf, other.as_subclass(Tensor), equal_nan=True)
        else:
            assert (type(leaf), leaf) == (type(other), other)


pytestmark = pytest.mark.filterwarnings("ignore:.*(prototype|beta state|are deprecated)")  # torch, of strange tensors


@pytest.fixture(scope="module")
def ranks() -> Iterator[Callable[[str], Ranks]]:
    started = cache(Ranks)
    yield started
    for form in FORMS:
        started(form).pipe.close()


def changed(call: Call, index: int, change: Callable[[Tensor], Any]) -> Call:
    """The call with one of its tensors changed; of which, counts round."""
    leaves, spec = pytree.tree_flatten(call)
    tensors = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    place = tensors[index % len(tensors)]
    leaves[place] = change(leaves[place])
    return pytree.tree_unflatten(leaves, spec)


ANY_FORM = st.sampled_from(sorted(set(FORMS) - {"fixed"}))


@given(form=ANY_FORM, rows=st.integers(1, 9), index=st.integers(0, 5), change=st.sampled_from(sorted(HARMLESS)))
def test_any_batch_in_any_form_is_answered_as_by_the_model(
    ranks: Callable[[str], Ranks], form: str, rows: int, index: int, change: str
) -> None:
    of = ranks(form)
    of.check(changed(of.call(rows), index, HARMLESS[change]))
    assert of.pipe.pids == of.pids


@settings(max_examples=settings.default.max_examples // 8)
@given(form=ANY_FORM, rows=st.integers(1, 9), parts=st.none() | st.integers(1, 9))
def test_any_batch_in_any_number_of_parts_is_answered_as_by_the_model(
    ranks: Callable[[str], Ranks], form: str, rows: int, parts: int | None
) -> None:
    of = ranks(form)
    of.check(of.call(rows), None if parts is None else min(parts, rows))
    assert of.pipe.pids == of.pids


@given(form=st.sampled_from(sorted(FORMS)), index=st.integers(0, 5), change=st.sampled_from(sorted(STRANGE)))
def test_a_strange_input_is_answered_as_by_the_model_or_refused(
    ranks: Callable[[str], Ranks], form: str, index: int, change: str
) -> None:
    """A sparse input, one on the meta device and one of another kind of number ended in errors of torch's."""
    of = ranks(form)
    try:
        of.check(changed(of.call(ROWS), index, STRANGE[change]))
    except PipelabError as error:
        assert 10 < len(str(error)) < 800
        of.check_well()


@pytest.mark.parametrize("change", OTHER_ARGUMENTS)
def test_other_arguments_are_refused(ranks: Callable[[str], Ranks], change: str) -> None:
    """2 passed for 2.0, and 1 for True: the ranks then computed in another dtype than the model."""
    of = ranks("nested")
    try:
        of.check(OTHER_ARGUMENTS[change](of.call(ROWS)))
    except PipelabError as error:
        assert change in ("none", "one more", "unknown name") or "traced" in str(error)
    of.check_well()


@pytest.mark.parametrize("argument", ["num_microbatches", "repeats", "pace"])
def test_any_setting_of_a_run_is_right_or_refused(ranks: Callable[[str], Ranks], argument: str) -> None:
    of = ranks("plain")
    call = of.call(ROWS)
    for value in VALUES:
        if argument == "repeats" and type(value) is int and value == 10**6:
            continue  # it is right, and takes its time
        told(lambda value=value: of.pipe.run(*call[0], **{"repeats": 1, argument: value}))
    of.check_well()


def test_no_other_plan_is_taken(ranks: Callable[[str], Ranks]) -> None:
    of, other = ranks("plain"), ranks("nested")
    for value in (*VALUES, other.pipe.plan, other.traced, of.pipe.plan.cuts):
        with pytest.raises(PipelabError):
            of.pipe.replan(value)
        with pytest.raises(PipelabError):
            pipelab.start(of.traced, value)
    of.check_well()


def test_nothing_else_is_started(ranks: Callable[[str], Ranks]) -> None:
    """A device that is no text was a TypeError of the `re` module, a trace that is none an AttributeError."""
    of = ranks("plain")
    for value in VALUES:
        with pytest.raises(PipelabError):
            pipelab.start(value, of.pipe.plan)
        with pytest.raises(PipelabError):
            pipelab.start(of.traced, of.pipe.plan, device=value)
        with pytest.raises(PipelabError):
            pipelab.measure(of.traced, device=value)
    of.check_well()

"""Cuts by name, and what is said when a name leads nowhere."""

import pytest
import torch
import zoo
from torch import Tensor, nn

import pipelab
from pipelab.errors import SplitError
from pipelab.split_points import SplitPoint, name_of, resolve

GRAPH = pipelab.trace(*zoo.build("shared_block")[:1], **zoo.build("shared_block")[1]).graph


def test_outermost_module_that_begins_there_names_the_cut() -> None:
    starts = [call.start for call in GRAPH.modules if call.path == "block"]
    assert [name_of(GRAPH, start) for start in starts[1:]] == ["block@1", "block@2"]


def test_inside_a_module_the_op_and_its_number_name_the_cut() -> None:
    names = [name_of(GRAPH, position) for position in GRAPH.legal]
    assert ":aten.add.Tensor" in names
    assert ":aten.add.Tensor#1" in names
    assert [resolve(GRAPH, name) for name in names] == list(GRAPH.legal)


def test_end_of_a_module_is_after_its_last_op() -> None:
    call = next(c for c in GRAPH.modules if c.path == "block" and c.call == 1)
    assert resolve(GRAPH, "block@1", SplitPoint.END) == call.stop


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("blocks", "ran no module 'blocks'.*Similar: 'block'"),
        ("block@7", "ran no module 'block@7'"),
        ("block:aten.mul.Tensor", "has no op"),
        ("elsewhere:aten.mul.Tensor", "ran no module 'elsewhere'"),
        ("block@x", "not the name of a cut"),
        ("block", "is not a legal cut"),
    ],
)
def test_name_that_leads_nowhere(name: str, said: str) -> None:
    with pytest.raises(SplitError, match=said):
        resolve(GRAPH, name)


class OddNames(nn.Module):
    """Modules named with the characters that names of cuts are made of; one of them runs twice."""

    def __init__(self) -> None:
        super().__init__()
        names = ("a@1", "a@2", "b:c", "b", "c#3", "d@x:y#1", "@", ":", "#", "<i>", "'")
        self.parts = nn.ModuleDict({name: nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for name in names})

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts.values():
            x = x + part(x)
        return x + self.parts["a@2"](x)


def test_modules_with_odd_names_are_found() -> None:
    graph = pipelab.trace(OddNames().eval(), torch.zeros(2, 4)).graph
    names = [name_of(graph, position) for position in graph.legal]
    assert "parts.a@2" in names
    assert "parts.a@2@1" in names
    assert "parts.b:c" in names
    assert [resolve(graph, name) for name in names] == list(graph.legal)

"""Names are shown as one line of text, whatever they contain."""

import pytest
from graphs import gpt2_graph, mlp_graph
from hypothesis import given
from hypothesis import strategies as st

from pipelab.comparing import side_by_side
from pipelab.graph import Graph
from pipelab.names import isolated, printable
from pipelab.policies import uniform

HOSTILE = [
    "<script>alert(1)</script>",
    "two\nlines\ttab",
    "\u202eback",
    "\0\x1b[31mred",
    "\u2028",
    "'\"`$x$\\",
    "x" * 300,
]


@given(st.text())
def test_what_is_printable_stays_and_the_rest_is_escaped(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert name.isprintable() == (shown == name)


def test_parts_written_from_right_to_left_are_isolated() -> None:
    assert isolated("h.3") == "h.3"
    assert isolated("\u05d0\u05d1.3") == "\u2068\u05d0\u05d1\u2069.3"


@pytest.mark.parametrize("name", HOSTILE)
def test_reprs_hold_no_control_characters(name: str) -> None:
    graph = gpt2_graph(3, model=name)
    plan = uniform(graph, num_stages=2)
    compared = side_by_side({name: plan, "other": uniform(graph, num_stages=3)}, hardware="h100-80gb")
    for text in (repr(graph), graph.summary(), repr(plan), plan.verdict, repr(compared)):
        assert all(line.replace("\u00a0", " ").isprintable() for line in text.split("\n"))
    assert len(repr(plan).split("\n")) == len(repr(uniform(gpt2_graph(3), num_stages=2)).split("\n"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_graph_with_any_name_survives_a_file(name: str) -> None:
    graph = mlp_graph(model=name)
    assert Graph.from_json(graph.to_json()) == graph

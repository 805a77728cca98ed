"""The comparison's view without a browser: what a notebook gets of it, its trait, its files."""

from pathlib import Path

import pytest
import traitlets
from graphs import gpt2_graph

import pipelab
from pipelab.comparing import side_by_side
from pipelab.comparison import Comparison
from pipelab.errors import InputError
from pipelab.policies import uniform

GPT2 = gpt2_graph()


def timed() -> Comparison:
    return pipelab.compare(GPT2, num_stages=4, hardware="t4-16gb")


def test_the_best_plan_is_chosen_first_and_another_can_be() -> None:
    view, seen = timed().view, []
    assert view.value == "optimal"
    view.observe(lambda change: seen.append(change["new"]), "value")
    view.value = "threshold"
    assert seen == ["threshold"]
    with pytest.raises(traitlets.TraitError, match=r"no plan 'nobody' here; there are 'equal_size', 'threshold'"):
        view.value = "nobody"


def test_a_notebook_gets_the_widget_the_picture_and_the_table() -> None:
    comparison = timed()
    data, metadata = comparison._repr_mimebundle_()
    assert data["text/plain"] == repr(comparison)
    assert data["image/png"].startswith("iVBOR") and metadata["image/png"]["width"] == 1152
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == comparison.view.model_id
    assert comparison.view is comparison.view


def test_what_lab_did_not_make_has_no_view() -> None:
    comparison = side_by_side([uniform(GPT2, num_stages=2)])
    assert comparison._repr_mimebundle_() is None
    with pytest.raises(InputError, match=r"pipelab\.compare makes those that have one"):
        comparison.save("plans.html")


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("A.HTML", b"<!doctype html>")]
)
def test_it_is_saved_by_suffix(name: str, begins: bytes, tmp_path: Path) -> None:
    timed().save(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"saved as \.html, \.png or \.svg, not as \.txt"):
        timed().save(tmp_path / "plans.txt")
    assert not list(tmp_path.iterdir())


def test_the_same_comparison_gives_the_same_drawing(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        timed().save(tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()

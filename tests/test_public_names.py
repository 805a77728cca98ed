"""The public face: the names that people and other people's checks rely on."""

from pathlib import Path

import pytest

import pipelab

PUBLIC = [
    "Certificate",
    "Comparison",
    "Event",
    "Frontier",
    "FrontierPoint",
    "GenerationReport",
    "Graph",
    "Hardware",
    "Landscape",
    "Measurement",
    "PipelabError",
    "Pipeline",
    "Plan",
    "Regret",
    "Report",
    "SplitPoint",
    "Timeline",
    "Trace",
    "compare",
    "equal_size",
    "explore",
    "frontier",
    "landscape",
    "measure",
    "optimal",
    "optimal_mix",
    "peers",
    "pipe_split",
    "regret",
    "simulate",
    "split_at",
    "start",
    "threshold",
    "trace",
    "trace_pretrained",
    "uniform",
    "viz",
]
PUBLIC_VIZ = ["compare", "stage_graph", "stage_sizes", "timeline"]


def test_the_public_names_are_these() -> None:
    assert pipelab.__all__ == sorted(pipelab.__all__) == PUBLIC
    assert pipelab.viz.__all__ == sorted(pipelab.viz.__all__) == PUBLIC_VIZ


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_can_be_imported(name: str) -> None:
    assert getattr(pipelab, name) is not None
    assert name in dir(pipelab)


@pytest.mark.parametrize("name", PUBLIC_VIZ)
def test_a_public_figure_can_be_imported(name: str) -> None:
    assert callable(getattr(pipelab.viz, name))


@pytest.mark.parametrize("name", ["nothing", "Explore"])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(pipelab, name)
    with pytest.raises(AttributeError, match=name):
        getattr(pipelab.viz, name)


def test_no_module_bears_the_name_of_a_public_function() -> None:
    # With lazy loading the second `pipelab.viz.timeline` would be the module.
    folder = Path(pipelab.__file__).parent
    functions = {name for name in PUBLIC if name.islower()} - {"peers", "viz"}
    assert not functions & {path.stem for path in folder.iterdir()}
    assert not {*functions, *PUBLIC_VIZ} & {path.stem for path in (folder / "viz").iterdir()}

"""Whatever is passed to an explorer or set on it: taken, or refused in words; and it shows a plan as before."""

from contextlib import suppress
from pathlib import Path

import pytest
import traitlets
from graphs import gpt2_graph
from hostile import VALUES, told

import pipelab
from pipelab.arguments import shown

PLAN = pipelab.uniform(gpt2_graph(3, hidden=8, vocab=32, batch=6, length=4), num_stages=2)
# What cannot be written at all, traitlets cannot write into its message; arrays it compares like numbers.
UNLIKELY = ("a very long", "a Unshowable", "a list", "array")
WRITABLE = [value for value in VALUES if not shown(value).startswith(UNLIKELY)]
TRAITS = ("cuts", "value", "num_stages", "num_microbatches", "num_ranks", "hardware", "schedule", "train", "workload")


@pytest.mark.parametrize("argument", ["traced", "num_microbatches", "hardware"])
def test_any_argument_is_taken_or_refused(argument: str) -> None:
    """A number of stages that was a text was a TypeError, no device a ValueError."""
    for value in VALUES:
        arguments = {"traced": PLAN, argument: value}
        if explorer := told(lambda arguments=arguments: pipelab.explore(arguments.pop("traced"), **arguments)):
            assert explorer.plan.stages
            explorer.close()


@pytest.mark.parametrize("trait", TRAITS)
def test_any_value_of_a_trait_is_taken_or_refused(trait: str) -> None:
    explorer = pipelab.explore(PLAN)
    for value in WRITABLE:
        with suppress(traitlets.TraitError):
            setattr(explorer, trait, value)
        assert explorer.plan.stages
        assert len(explorer.cuts) == explorer.num_stages - 1
    explorer.close()


def test_any_path_to_save_to_is_taken_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    explorer = pipelab.explore(PLAN)
    comparison = pipelab.compare({"mine": PLAN})
    for value in (*VALUES, tmp_path, "no/such/folder.svg", "\x00.svg"):
        told(lambda value=value: explorer.save(value))
        told(lambda value=value: comparison.save(value))
    explorer.close()

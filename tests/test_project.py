"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import pipelab

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Packages that conda-forge calls something else.
CONDA_NAMES = {"graphviz": "python-graphviz", "matplotlib": "matplotlib-base", "torch": "pytorch"}


def name_and_range(requirement: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", requirement)
    assert match is not None
    return match[1].lower(), match[2]


def requirements(*extras: str) -> dict[str, str]:
    listed = [*PROJECT["dependencies"], *(item for extra in extras for item in PROJECT["optional-dependencies"][extra])]
    return dict(name_and_range(item) for item in listed if not item.startswith("pipelab["))


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines) if version}


def test_environment_yml_lists_the_dependencies_of_pyproject() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = dict(name_and_range(item) for item in listed if isinstance(item, str))
    expected = {CONDA_NAMES.get(name, name): spec for name, spec in requirements("transformers", "lab").items()}
    expected |= {"python": PROJECT["requires-python"], "pip": "", "graphviz": ""}
    assert conda == expected


def test_environment_yml_installs_pipelab_itself() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["--editable ."]} in listed


def test_constraints_pin_every_dependency() -> None:
    missing = set(requirements("transformers", "lab", "test")) - set(pins())
    assert not missing


@pytest.mark.parametrize(("name", "version"), [("torch", "2.13.0"), ("transformers", "5.23.0")])
def test_constraints_pin_the_tested_versions(name: str, version: str) -> None:
    assert pins()[name] == version


def test_the_changelog_names_this_version() -> None:
    assert f"## {pipelab.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_notebooks_hold_no_outputs() -> None:
    import nbformat

    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None, f"{path.name} holds outputs"
            assert cell.cell_type == "markdown" or cell.source.count("\n") < 15, f"{path.name}: a long cell"

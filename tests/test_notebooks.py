"""The course's notebooks keep its form, and their exercises accept the right answer only. nbmake runs them."""

import contextlib
import io
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
# The answer of each exercise, worked out by hand, and answers people give instead.
EXERCISES: dict[str, tuple[float, list[float]]] = {
    "01_first_pipeline": (1 / 9, [1 / 8, 0.5]),
    "02_drag_the_split": (14, [20, 0, 1.5, 13]),
    "03_schedules_and_bubbles": (63, [62, 64, 70]),
    "04_compare_splits": (5, [1, 1.5, 2]),
    "05_generate_text": (50, [200, 20, 5]),
}
EXAMPLE = re.compile(r"answer = None.*")

notebooks = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)


class Cell(NamedTuple):
    id: str
    kind: str
    source: str


def cells_of(path: Path) -> list[Cell]:
    cells = json.loads(path.read_text())["cells"]
    return [Cell(cell["id"], cell["cell_type"], "".join(cell["source"])) for cell in cells]


def exercise_of(path: Path) -> tuple[str, str]:
    """The text and the code of its only exercise."""
    cells = cells_of(path)
    [index] = [index for index, cell in enumerate(cells) if cell.source.startswith("answer = None")]
    return cells[index - 1].source, cells[index].source


def told(code: str, answer: float | None) -> str:
    """What an exercise says to an answer; it needs nothing from the cells before."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(EXAMPLE.sub(f"answer = {answer!r}", code, count=1), {})
    return output.getvalue()


@notebooks
def test_a_sentence_stands_before_every_code_cell(path: Path) -> None:
    cells = cells_of(path)
    assert cells[0].kind == "markdown"
    before = [cell for cell, after in pairwise(cells) if after.kind == "code"]
    assert [cell.id for cell in before if cell.kind == "code" or cell.source.rstrip()[-1] not in ".?!:"] == []


@notebooks
def test_cells_are_numbered_and_of_a_kernel_everybody_has(path: Path) -> None:
    cells = cells_of(path)
    assert [cell.id for cell in cells] == [f"cell-{index:02d}" for index, _ in enumerate(cells)]
    assert json.loads(path.read_text())["metadata"]["kernelspec"]["name"] == "python3"


@notebooks
def test_nothing_is_downloaded_and_no_shell_is_used(path: Path) -> None:
    code = "\n".join(cell.source for cell in cells_of(path) if cell.kind == "code")
    assert re.findall(r"from_pretrained|https?://|^\s*[!%].*", code, flags=re.MULTILINE) == []


@notebooks
def test_notebooks_that_are_named_exist(path: Path) -> None:
    text = "\n".join(cell.source for cell in cells_of(path))
    assert [name for name in re.findall(r"[\w.]+\.ipynb", text) if not (FOLDER / name).exists()] == []


@notebooks
def test_the_exercise_gives_a_hint_and_knows_its_answer(path: Path) -> None:
    text, code = exercise_of(path)
    right, wrong = EXERCISES[path.stem]
    assert text.startswith("## Exercise") and "*Hint:*" in text
    assert told(code, None).startswith("Your turn")
    assert told(code, right).startswith("Yes")
    assert [answer for answer in wrong if told(code, answer).startswith("Yes")] == []

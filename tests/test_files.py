"""Files that were damaged, by chance or on purpose: refused by name, or what they say is what comes out."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from graphs import gpt2_graph, mlp_graph
from hypothesis import given
from hypothesis import strategies as st
from runs import made_up_report

import pipelab
from pipelab import Graph, PipelabError, Plan, Report, Timeline

GRAPH = gpt2_graph(2, hidden=8, vocab=32, batch=6, length=4)
PLAN = pipelab.uniform(GRAPH, num_stages=2)
REPORT = made_up_report(pipelab.uniform(mlp_graph(3), num_stages=2), 3)


def use(loaded: Plan | Report) -> None:
    """Everything that is shown of it."""
    assert repr(loaded)
    plan = loaded.plan if isinstance(loaded, Report) else loaded
    assert plan.stages
    assert plan.boundaries is not None
    assert plan.graph.summary()
    if isinstance(loaded, Report):
        assert loaded.verdict
        assert loaded.timeline.to_chrome_trace()
        assert pipelab.compare({"it": loaded}).entries


LOADERS: dict[str, tuple[str, Callable[[Path], Plan | Report]]] = {
    "plan": (json.dumps(PLAN.to_json(), indent=2), lambda path: Plan.load(path, GRAPH)),
    "report": (json.dumps(REPORT.to_json()), Report.load),
}
EITHER = pytest.mark.parametrize("kind", LOADERS)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "saved.json"


def load(kind: str, path: Path, content: bytes) -> Plan | Report | None:
    """What is read; None where it is refused, by the file's name."""
    path.write_bytes(content)
    try:
        loaded = LOADERS[kind][1](path)
    except PipelabError as error:
        assert str(path) in str(error)
        assert 10 < len(str(error)) < 1500
        return None
    use(loaded)
    return loaded


@EITHER
@given(data=st.data())
def test_a_flipped_byte_is_refused_or_harmless(kind: str, path: Path, data: st.DataObject) -> None:
    """A report was built of whatever was there: KeyError, TypeError, IndexError, or figures below 0."""
    content = bytearray(LOADERS[kind][0].encode())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    load(kind, path, bytes(content))


@EITHER
@given(data=st.data())
def test_a_part_of_a_file_is_refused(kind: str, path: Path, data: st.DataObject) -> None:
    content = LOADERS[kind][0].encode()
    start = data.draw(st.integers(0, len(content) - 2))
    stop = data.draw(st.integers(start, len(content) - 2))
    assert load(kind, path, content[start:stop]) is None


WRONG = [
    None, True, 0, -1, 1.5, 10**400, -(10**15), 1e308, "", "x" * 20_000, "0@" + "1" * 9000, "@" * 9000, "\ud800",
    [], {}, [[]], [None], [-1], [10**30], ["x"], [{}], {"a": 1},
]  # fmt: skip


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in JSON data; of a list, its first and last items."""
    yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from places(value, (*path, key))
    elif isinstance(data, list):
        for index in sorted({0, len(data) - 1}) if data else ():
            yield from places(data[index], (*path, index))


def replaced(data: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copied = data.copy()
    copied[place[0]] = replaced(data[place[0]], place[1:], value)
    return copied


PLACES = {kind: list(places(json.loads(text))) for kind, (text, _) in LOADERS.items()}


@EITHER
@given(data=st.data())
def test_a_wrong_value_in_any_place_is_refused_or_harmless(kind: str, path: Path, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(PLACES[kind]))
    value = data.draw(st.sampled_from(WRONG))
    load(kind, path, json.dumps(replaced(json.loads(LOADERS[kind][0]), place, value)).encode())


@EITHER
@given(data=st.data())
def test_a_missing_or_unknown_name_is_refused_or_harmless(kind: str, path: Path, data: st.DataObject) -> None:
    saved = json.loads(LOADERS[kind][0])
    place = data.draw(st.sampled_from([place for place in PLACES[kind] if place and isinstance(place[-1], str)]))
    holder = saved
    for key in place[:-1]:
        holder = holder[key]
    value = holder.pop(place[-1])
    if data.draw(st.booleans()):
        holder[f"{place[-1]}_"] = value
    load(kind, path, json.dumps(saved).encode())


@EITHER
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"\xff\xfe", b"null", b"[]", b'"x"', b"1" * 5000, b"NaN", b"[" * 100_000, b'{"a":' * 100_000,
     b'{"format": "pipelab-plan", "format": "pipelab-report"}', b"\x80\x04\x95\x0b\x00", b"PK\x03\x04"],
    ids=["empty", "zero", "utf-16", "null", "list", "text", "long number", "NaN", "deep list", "deep object", "twice",
         "pickle", "zip"],
)  # fmt: skip
def test_what_is_no_such_file_is_refused(kind: str, path: Path, content: bytes) -> None:
    """A number of 5,000 digits was a ValueError, a hundred thousand brackets a RecursionError."""
    assert load(kind, path, content) is None


@EITHER
def test_names_that_are_there_twice_are_refused(kind: str, path: Path) -> None:
    text = LOADERS[kind][0]
    assert load(kind, path, text.replace('"version"', '"version": 7, "version"', 1).encode()) is None


def test_a_report_without_a_timeline_is_refused(path: Path) -> None:
    """It may be without a prediction, and so both could be null: AttributeError."""
    assert load("report", path, json.dumps({**REPORT.to_json(), "timeline": None}).encode()) is None


@EITHER
def test_infinity_is_no_number(kind: str, path: Path) -> None:
    assert load(kind, path, LOADERS[kind][0].replace('"version": ', '"version": Infinity, "v": ').encode()) is None


@EITHER
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    """A pipe that nobody writes to was waited for, for ever."""
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "no" / "such", "\x00", "\ud800", "x" * 5000, None, 3.5, b"x"):
        with pytest.raises(PipelabError, match=f"There is no {kind} to read at"):
            LOADERS[kind][1](place)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("saved", [PLAN, REPORT], ids=["plan", "report"])
def test_what_cannot_be_saved_is_said(saved: Plan | Report, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "no" / "such", "\x00", None):
        with pytest.raises(PipelabError, match="cannot be saved at"):
            saved.save(place)  # type: ignore[arg-type]  # that is the point


@given(st.data())
def test_graphs_and_timelines_are_checked_where_they_are_made(data: st.DataObject) -> None:
    for kind, whole in ((Graph, REPORT.plan.graph.to_json()), (Timeline, REPORT.timeline.to_json())):
        plain = json.loads(json.dumps(whole))
        place = data.draw(st.sampled_from(list(places(plain))))
        try:
            made = kind.from_json(replaced(plain, place, data.draw(st.sampled_from(WRONG))))
        except PipelabError:
            continue
        assert repr(made)


def test_a_name_is_not_searched_for_ever() -> None:
    """Each end of a name a megabyte long was tried, each time from there to its end."""
    with pytest.raises(PipelabError, match="too long"):
        pipelab.split_at(GRAPH, ["@" * 1_000_000])
    with pytest.raises(PipelabError, match=r"not the name of a cut|ran no module"):
        pipelab.split_at(GRAPH, ["transformer.h.1@" + "9" * 5000])

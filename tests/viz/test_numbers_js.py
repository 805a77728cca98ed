"""The browser's texts of numbers equal Python's."""

from hypothesis import given
from hypothesis import strategies as st
from node import Node

from pipelab.units import format_bytes, format_count, format_need, format_percent, format_seconds, format_whole

CALL = "const numbers = await load('numbers.js'); return args[1].map(numbers[args[0]]);"


@given(st.lists(st.one_of(st.integers(0, 10**15), st.integers(0, 10**5).map(lambda n: n * 125)), min_size=50))
def test_counts_and_bytes_are_written_as_python_writes_them(node: Node, values: list[int]) -> None:
    assert node.run(CALL, "formatCount", values) == [format_count(value) for value in values]
    assert node.run(CALL, "formatBytes", values) == [format_bytes(value) for value in values]


@given(st.lists(st.floats(1e-9, 1e6), min_size=50))
def test_seconds_are_written_as_python_writes_them(node: Node, values: list[float]) -> None:
    assert node.run(CALL, "formatSeconds", values) == [format_seconds(value) for value in values]


@given(st.lists(st.tuples(st.integers(1, 10**12), st.integers(1, 10**12)), min_size=50))
def test_what_is_needed_of_what_there_is_is_written_as_python_writes_it(
    node: Node, pairs: list[tuple[int, int]]
) -> None:
    call = "const { formatNeed } = await load('numbers.js'); return args[0].map((pair) => formatNeed(...pair));"
    assert node.run(call, pairs) == [format_need(*pair) for pair in pairs]
    there = [there for _, there in pairs]
    assert node.run(CALL, "wholeBytes", there) == [format_whole(num_bytes) for num_bytes in there]


@given(st.lists(st.floats(0, 10), min_size=50))
def test_shares_are_written_as_python_writes_them(node: Node, shares: list[float]) -> None:
    assert node.run(CALL, "percent", shares) == [format_percent(share) for share in shares]

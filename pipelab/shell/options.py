"""What both commands ask for, and how words become values."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

from pipelab import policies, presets
from pipelab.graph import Graph
from pipelab.plan import Plan

DTYPES = ("float32", "bfloat16", "float16")
PIPPYS: dict[str, Callable[..., Plan]] = {
    "equal_size": policies.equal_size,
    "threshold": policies.threshold,
    "uniform": policies.uniform,
}
SPLITS = ("optimal", *PIPPYS)
HARDWARE = tuple(presets.PRESETS)


def add_common(parser: argparse.ArgumentParser) -> None:
    """What is split, and what is printed."""
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: the config's own)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def whole(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


whole.__name__ = "whole number above 0"  # argparse's message: "invalid whole number above 0 value: '0'"


def positive(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


positive.__name__ = "number above 0"


def share(text: str) -> float:
    """A number above 0, at most 1."""
    number = positive(text)
    if number > 1:
        raise ValueError(text)
    return number


share.__name__ = "number above 0, at most 1,"


def new_file(text: str) -> str:
    """A path to write to: what is wrong with it is said before a model is traced."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        )
    return text


def split(graph: Graph, policy: str, num_stages: int) -> Plan:
    """The plan of a policy that looks at sizes only."""
    return PIPPYS[policy](graph, num_stages=num_stages)

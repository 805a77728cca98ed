"""The palette: readable with black text, neighbours told apart by everybody."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelab.viz.palette import STAGE_COLOURS

# Machado, Oliveira, Fernandes (2009): what people without one kind of cone see, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> NDArray[np.float64]:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_there_are_sixteen_different_colours() -> None:
    assert len(set(STAGE_COLOURS)) == 16


@pytest.mark.parametrize("colour", STAGE_COLOURS)
def test_black_text_is_readable(colour: str) -> None:
    luminance = TO_XYZ[1] @ linear(colour)
    assert (luminance + 0.05) / 0.05 >= 4.5


@pytest.mark.parametrize("sight", SIGHT)
def test_neighbours_are_told_apart(sight: str) -> None:
    seen = [lab(np.array(SIGHT[sight]) @ linear(colour)) for colour in STAGE_COLOURS]
    nearest = min(np.linalg.norm(a - b) for a, b in pairwise(seen))
    assert nearest >= 15

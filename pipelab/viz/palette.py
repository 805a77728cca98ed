"""The colours of stages, one list for every figure and the widget.

Sixteen calm hues: eight of one lightness, then eight darker ones between them. Neighbours stay apart for
people with any colour blindness, and black text is readable on each. The stage number is printed all the same.
"""

STAGE_COLOURS = (
    "#86c3ff", "#ebb16c", "#7ad4a5", "#c3b0fd", "#eea2d4", "#bbc671", "#56d2df", "#fda19a",
    "#879ae3", "#b69c46", "#38b4a4", "#bb88cb", "#d78098", "#7daf6a", "#45acd4", "#d68861",
)  # fmt: skip
# Forward, backward, and its parts for inputs and weights: apart in lightness, and by hatches, for print in grey.
KIND_COLOURS = {"F": "#a3c9f1", "B": "#dc7f32", "I": "#8cc487", "W": "#ad7fd1"}
KIND_HATCHES = {"F": "", "B": "", "I": "////", "W": "...."}
TEXT = "#000000"
EDGE = "#73787f"
WAIT = "#e3e5e8"


def stage_colour(index: int) -> str:
    """The colour of a stage; after sixteen they begin again.

    Example:
        >>> stage_colour(0) == stage_colour(16)
        True
    """
    return STAGE_COLOURS[index % len(STAGE_COLOURS)]

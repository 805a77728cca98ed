"""Plain-text tables, as `repr` of Plan and Report prints them."""

import re
from collections.abc import Sequence
from textwrap import fill

# A terminal shows as many characters, and a notebook in a small window; both break longer lines in the middle of words.
_WIDTH = 80
# Stands for the space of "3.32 s" meanwhile; no text has one.
_NO_BREAK = "\0"


def wrap(text: str) -> str:
    """A sentence in lines that a notebook and a terminal show whole.

    Example:
        >>> print(wrap("Stage 3 is the bottleneck: it computes 3.32 s, the mean is 2.64 s. " * 2))
        Stage 3 is the bottleneck: it computes 3.32 s, the mean is 2.64 s. Stage 3 is
        the bottleneck: it computes 3.32 s, the mean is 2.64 s.
    """
    whole = re.sub(r"(?<=\d) (?=[µmkMGT]?[sB%M]\b|%)", _NO_BREAK, text)
    return fill(whole, _WIDTH, break_long_words=False, break_on_hyphens=False).replace(_NO_BREAK, " ")


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Columns padded to their widest cell, two spaces apart.

    Args:
        header: One title per column.
        rows: The cells, as text.
        left: Indices of the columns that are aligned left; the others are aligned right.

    Example:
        >>> print(format_table(["stage", "MB"], [["0", "12.5"], ["1", "3"]]))
        stage    MB
        0      12.5
        1         3
    """
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def text(line: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(text(line) for line in lines)

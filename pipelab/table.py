"""Plain-text tables, as `repr` of Plan and Report prints them."""

from collections.abc import Sequence


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

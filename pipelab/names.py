"""How names are shown: models, modules and weights may be called anything."""

import unicodedata

_RIGHT_TO_LEFT = ("R", "AL", "AN")


def printable(name: str) -> str:
    r"""A name as one line of plain text: what does not print, or turns text around, is escaped as in Python's repr.

    Example:
        >>> print(printable("h.3"), printable("two\nlines"), printable("\u202eback"))
        h.3 two\nlines \u202eback
    """
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def isolated(path: str) -> str:
    """A name for the middle of a sentence: parts written from right to left leave the order of the others alone.

    Args:
        path: A printable name; its parts, between dots, are isolated one by one.
    """
    if path.isascii():
        return path
    return ".".join(f"\u2068{part}\u2069" if _is_right_to_left(part) else part for part in path.split("."))


def shown(name: str) -> str:
    """A name as text in the browser: printable and isolated."""
    return isolated(printable(name))


def _is_right_to_left(text: str) -> bool:
    return any(unicodedata.bidirectional(c) in _RIGHT_TO_LEFT for c in text)

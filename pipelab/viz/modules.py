"""The browser's half of the widgets: files in `static/`, each with one concept, joined into one module without imports.

A widget's module reaches the browser as text, from which no other file can be imported. In the files themselves the
imports are real, so that node runs each of them as it is.
"""

import re
from pathlib import Path

STATIC = Path(__file__).parent / "static"
_IMPORT = re.compile(r'^import [^;]*? from "\./([a-z_]+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


def module(name: str) -> str:
    """One ES module: a file of `static/` behind all that it imports.

    Args:
        name: The file, such as "explorer.js"; it alone may export a default.
    """
    found: dict[str, str] = {}
    _collect(name, found)
    return "\n".join(found.values())


def stylesheet(*names: str) -> str:
    """One stylesheet: these files of `static/`, in this order."""
    return "\n".join((STATIC / name).read_text("utf-8") for name in names)


def _collect(name: str, found: dict[str, str]) -> None:
    """Add a file's text, without imports and exports, behind those of the files it imports."""
    if name in found:
        return
    text = (STATIC / name).read_text("utf-8")
    for imported in _IMPORT.findall(text):
        _collect(imported, found)
    found[name] = _EXPORT.sub("", _IMPORT.sub("", text))

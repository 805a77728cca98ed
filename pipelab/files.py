"""Plans and reports as files: JSON, checked against the types of what it becomes. Nothing in it is executed."""

import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pipelab.arguments import shown
from pipelab.errors import InputError, PipelabError
from pipelab.units import format_bytes

_MOST_BYTES = 500_000_000  # of a file; a report of 5,000 ops and as many events is 3 MB
_LARGEST = 2**53  # from here on JSON's whole numbers are not exact everywhere


def read_json(path: str | Path, what: str, *, error: type[PipelabError] = PipelabError) -> Any:
    """The data of a JSON file.

    Args:
        path: The file.
        what: What it should be: "plan", "report".
        error: What is raised.

    Raises:
        PipelabError: There is no such file, or it is not JSON.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            raise error(f"There is no {what} to read at {path}: it is no file.")
        if status.st_size > _MOST_BYTES:
            raise error(f"{path} is not a {what}: it has {format_bytes(status.st_size)}.")
        text = Path(path).read_text("utf-8")
    except OSError as cause:
        raise error(f"There is no {what} to read at {shown(path)}: {cause.strerror}.") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path} is not a {what}: it is not JSON ({cause}).") from cause
    except (TypeError, ValueError) as cause:
        raise error(f"There is no {what} to read at {shown(path)}: that is no path.") from cause
    try:
        return json.loads(text, object_pairs_hook=_once_each, parse_constant=_refuse)
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not a {what}: it is not JSON ({cause}).") from cause


def suffix_of(path: Any) -> str:
    """What a file's name ends in: ".html".

    Raises:
        InputError: It is no path.
    """
    try:
        return Path(path).suffix.lower()
    except TypeError as cause:
        raise InputError(
            f"A file is saved under a name that ends in .html, .png or .svg, not {shown(path)}."
        ) from cause


def write_json(path: str | Path, text: str, what: str) -> None:
    """Write the text of a file.

    Raises:
        PipelabError: It cannot be written; says why.
    """
    write_bytes(path, text.encode(), what)


def write_bytes(path: str | Path, content: bytes, what: str) -> None:
    """Write a file.

    Raises:
        PipelabError: It cannot be written; says why.
    """
    try:
        Path(path).write_bytes(content)
    except OSError as cause:
        raise PipelabError(f"The {what} cannot be saved at {shown(path)}: {cause.strerror}.") from cause
    except (TypeError, ValueError) as cause:
        raise PipelabError(f"The {what} cannot be saved at {shown(path)}: that is no path.") from cause


def check_header(
    data: Any, form: str, version: int, what: str, source: str, *, error: type[PipelabError] = PipelabError
) -> dict[str, Any]:
    """The data, if it says that it is of this format and version.

    Raises:
        PipelabError: It does not.
    """
    found = data.get("format") if isinstance(data, dict) else None
    if not isinstance(found, str) or found != form:
        raise error(f"{source} is not a {what}: its format is not {form!r}.")
    if type(data.get("version")) is not int or data["version"] != version:
        raise error(
            f"{source} is a {what} of version {shown(data.get('version'))}; this pipelab reads version {version}."
        )
    return dict(data)


def damaged(source: str, text: str) -> PipelabError:
    """The error of a file, or of data, that says what cannot be."""
    return PipelabError(f"{source} is damaged: {text}. Save it again, or make it anew.")


def decode(kind: Any, data: Any, source: str, path: str = "", given: Mapping[str, Any] | None = None) -> Any:
    """JSON data as what its type says: a dataclass, a tuple, a number, a text.

    Args:
        kind: The type.
        data: The data.
        source: What an error names: the file.
        path: Where in it the data is: "timeline.events[3].rank".
        given: Fields of a dataclass that are known already, and are not in the data.

    Raises:
        PipelabError: It is something else; says where, what is expected, and what is there.
    """
    origin = get_origin(kind)
    if kind is Any:
        return data
    if kind in _SCALARS:
        text, fits = _SCALARS[kind]
        if not fits(data):
            raise damaged(source, f"{path or 'it'} must be {text}, and is {shown(data)}")
        return float(data) if kind is float else data
    if origin is Literal:
        if not isinstance(data, str) or data not in get_args(kind):
            known = ", ".join(map(repr, get_args(kind)))
            raise damaged(source, f"{path} must be one of {known}, and is {shown(data)}")
        return data
    if origin in (Union, UnionType):  # of a type and None only
        (inner,) = [alternative for alternative in get_args(kind) if alternative is not NoneType]
        return None if data is None else decode(inner, data, source, path)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise damaged(source, f"{path} must be a list, and is {shown(data)}")
        item = get_args(kind)[0]
        return tuple(decode(item, value, source, f"{path}[{index}]") for index, value in enumerate(data))
    if origin is dict:
        if not isinstance(data, dict):
            raise damaged(source, f"{path} must be an object, and is {shown(data)}")
        return dict(data)
    return _decode_record(kind, data, source, path, given or {})


def _decode_record(kind: Any, data: Any, source: str, path: str, given: Mapping[str, Any]) -> Any:
    hints, optional = _fields(kind)
    prefix = f"{path}." if path else ""
    if not isinstance(data, dict):
        raise damaged(source, f"{path or 'it'} must be an object, and is {shown(data)}")
    if unknown := [name for name in data if name not in hints or name in given]:
        raise damaged(source, f"nothing is called {shown(prefix + str(unknown[0]))}")
    values = dict(given)
    for name, hint in hints.items():
        if name in data:
            values[name] = decode(hint, data[name], source, f"{prefix}{name}")
        elif name not in values and name not in optional:
            raise damaged(source, f"{prefix}{name} is missing")
    return kind(**values)


@lru_cache(maxsize=64)
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The fields of a dataclass or a named tuple, and which of them may be missing."""
    hints = get_type_hints(kind)
    if not is_dataclass(kind):
        return hints, frozenset(kind._field_defaults)
    made = fields(kind)
    return {f.name: hints[f.name] for f in made}, frozenset(
        f.name for f in made if f.default is not MISSING or f.default_factory is not MISSING
    )


def _is_whole(data: Any) -> bool:
    return type(data) is int and abs(data) <= _LARGEST


def _is_number(data: Any) -> bool:
    return type(data) in (int, float) and abs(data) <= _LARGEST and isfinite(data)


_SCALARS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    int: ("a whole number", _is_whole),
    float: ("a number", _is_number),
    str: ("a text", lambda data: isinstance(data, str)),
    bool: ("true or false", lambda data: isinstance(data, bool)),
}


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")

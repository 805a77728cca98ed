"""What the kernel and the server say to each other. Data only, and no torch: the server says when it has none."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fork:
    """Make a rank. Descriptors: its control socket, its sentinel."""

    number: int


@dataclass(frozen=True, slots=True)
class Forked:
    """The rank that request `number` made."""

    number: int
    pid: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The system gave no process for request `number`: its reason."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End these ranks at once; an `Exited` follows for each."""

    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exited:
    """A rank has ended: its exit code, or minus the signal that ended it."""

    pid: int
    code: int


@dataclass(frozen=True, slots=True)
class Broken:
    """The server cannot work; the traceback of why."""

    traceback: str

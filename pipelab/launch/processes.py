"""What can be said of a process from outside: how it ended, whether it is stopped."""

import signal
from pathlib import Path


def describe_exit(code: int | None) -> str:
    """How a process ended, in words.

    Args:
        code: Its exit code, or minus the signal that ended it; None if nobody knows.
    """
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with exit code {code}"
    name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
    hint = " (by hand, or by the system because memory ran out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP or a debugger holds it, where the system says so."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in "Tt"

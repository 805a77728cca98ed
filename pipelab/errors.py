"""Every error pipelab raises on purpose. A message says what was asked, what was found and what to do.

PipelabError
├── TraceError        the model cannot be traced (a data-dependent branch, an unreachable model id)
├── SplitError        a split cannot be made: an illegal cut, too many stages, a plan of another model
├── InputError        inputs or a micro-batch count do not fit what was traced
├── LaunchError       ranks cannot be started: no weights, no memory, an operator they do not know
├── StageError        a rank failed while it ran: it raised, died or stopped making progress
└── Cancelled         a run was stopped by the user
"""


class PipelabError(Exception):
    """The root of every error pipelab raises on purpose.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)).eval()
        >>> try:
        ...     pipelab.uniform(pipelab.trace(model, torch.zeros(6, 4)), num_stages=3)
        ... except pipelab.PipelabError as error:
        ...     print(type(error).__name__)
        SplitError
    """


class TraceError(PipelabError):
    """The model could not be traced."""


class SplitError(PipelabError, ValueError):
    """The split that was asked for cannot be made."""


class InputError(PipelabError, ValueError):
    """What was passed does not fit what was traced."""


class LaunchError(PipelabError):
    """The ranks could not be started or loaded."""


class StageError(PipelabError):
    """A rank failed during a step; the first cause, with its own traceback.

    Attributes:
        rank: The rank that failed first.
        stage: The stage it held, or None before it held one.
        remote_traceback: The traceback text of that process; empty if it died without one.
    """

    def __init__(self, message: str, *, rank: int, stage: int | None, remote_traceback: str = "") -> None:
        super().__init__(message)
        self.rank = rank
        self.stage = stage
        self.remote_traceback = remote_traceback


class Cancelled(PipelabError):
    """The run was stopped before it finished; the ranks are still there."""

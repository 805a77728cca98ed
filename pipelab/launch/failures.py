"""Tells the user which rank failed, where in the model, and what became of the others."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from pipelab.errors import PipelabError, StageError
from pipelab.launch.group import RankDied, RankRaised, RankStalled
from pipelab.launch.job import Job
from pipelab.launch.ring_job import RingJob

Method = TypeVar("Method", bound=Callable[..., Any])

_ALL_ENDED = "All ranks were ended; the next run starts new ones."


def explain(job: Job | RingJob, failure: RankDied | RankRaised | RankStalled, stall_s: float) -> StageError:
    """The error that names the rank, its stage and the op."""
    rank = failure.rank
    if isinstance(failure, RankRaised):
        failed = failure.failed
        kind, _, message = failed.error.partition(": ")
        text = f"{_subject(rank)} raised {kind}{_where(job, rank, failed.op)}: {message}"
        return StageError(
            f"{text}\n\nTraceback of rank {rank}:\n{failed.traceback}",
            rank=rank,
            stage=rank,
            remote_traceback=failed.traceback,
        )
    if isinstance(failure, RankDied):
        text = f"{_subject(rank)} {failure.how}{_where(job, rank, failure.op)}. {_ALL_ENDED}"
    else:
        where = _where(job, rank, failure.op)
        stopped = f"is stopped (SIGSTOP, or a debugger){where}"
        hangs = stopped if failure.stopped else f"hangs{where}" if failure.op is not None else "is waited for"
        text = f"{_subject(rank)} {hangs}: no rank has made progress for {stall_s:g} s. {_ALL_ENDED}"
    return StageError(text, rank=rank, stage=rank)


def _subject(rank: int) -> str:
    return f"Stage {rank} (rank {rank})"


def _where(job: Job | RingJob, rank: int, op: int | None) -> str:
    row = job.row(rank, op)
    if row is None:
        return ""
    return f" in {row.module} ({row.target})" if row.module else f" in {row.target}"


def forgetful(method: Method) -> Method:
    """Have a method's errors keep no frame of ours.

    Python remembers the last error with all its frames, and they the pipeline: after `pipe = start(...)` in the next
    cell the ranks of the one before would live on.
    """

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except (PipelabError, KeyboardInterrupt) as error:
            del args
            link: BaseException | None = error
            while link is not None:
                link.__traceback__ = None
                link = link.__cause__ or link.__context__
            raise

    return cast(Method, call)

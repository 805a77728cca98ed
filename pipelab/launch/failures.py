"""Tells the user which rank failed, where in the model, and what became of the others."""

from pipelab.errors import StageError
from pipelab.launch.client import describe_exit
from pipelab.launch.group import RankDied, RankRaised, RankStalled
from pipelab.launch.job import Job

_ALL_ENDED = "All ranks were ended; the next run starts new ones."


def explain(job: Job, failure: RankDied | RankRaised | RankStalled, stall_s: float) -> StageError:
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
        text = f"{_subject(rank)} {describe_exit(failure.code)}{_where(job, rank, failure.op)}. {_ALL_ENDED}"
    else:
        hangs = f"hangs{_where(job, rank, failure.op)}" if failure.op is not None else "is waited for"
        text = f"{_subject(rank)} {hangs}: no rank has made progress for {stall_s:g} s. {_ALL_ENDED}"
    return StageError(text, rank=rank, stage=rank)


def _subject(rank: int) -> str:
    return f"Stage {rank} (rank {rank})"


def _where(job: Job, rank: int, op: int | None) -> str:
    row = job.row(rank, op)
    if row is None:
        return ""
    return f" in {row.module} ({row.target})" if row.module else f" in {row.target}"

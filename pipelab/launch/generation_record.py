"""What a generation leaves behind: when each group was on its way, from which its report is made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

from pipelab.generation_report import GenerationPhase, GenerationReport
from pipelab.launch.messages import Done
from pipelab.launch.programs import BEAMS, Programs
from pipelab.plan import Plan

_NS = 1e-9


@dataclass(frozen=True, slots=True)
class Passage:
    """One way of a group through all ranks, on the kernel's clock.

    Attributes:
        program: Its number.
        group: The group's.
        sent_ns: When it was sent off.
        back_ns: When the kernel had it back.
    """

    program: int
    group: int
    sent_ns: int
    back_ns: int


def report_of(
    plan: Plan,
    programs: Programs,
    rows: Sequence[int],
    num_prompt_tokens: int,
    passages: Sequence[Passage],
    done: Sequence[Done],
) -> GenerationReport:
    """What is told of a generation.

    Args:
        plan: Where the model is cut.
        programs: What the ranks ran.
        rows: Rows of each group, as the user passed them.
        num_prompt_tokens: Tokens that prefill reads, per row.
        passages: What went through the ranks.
        done: What each rank said at the end.
    """
    phases = [programs.phase(number) for number in range(len(programs.job.programs))]
    tokens = [
        [one for one in passages if one.group == group and phases[one.program] != BEAMS] for group in range(len(rows))
    ]
    prefill = [one for one in passages if phases[one.program] == "prefill"]
    decode = [one for one in passages if phases[one.program] != "prefill"]
    num_decode = sum(map(len, tokens)) - len(prefill)
    made = sum(count * (len(group) - 1) for count, group in zip(rows, tokens, strict=True))
    waited_s = _NS * sum(group[-1].back_ns - group[0].back_ns for group in tokens)
    there_s = _NS * sum(one.back_ns - one.sent_ns for one in decode)
    caches = [programs.job.kept(rank) for rank in range(plan.num_stages)]
    is_read = [phase == "prefill" for phase in phases]
    is_written = [phase != "prefill" for phase in phases]
    return GenerationReport(
        plan=plan,
        group_rows=tuple(rows),
        num_prompt_tokens=num_prompt_tokens,
        num_new_tokens=max(map(len, tokens)),
        has_cache=programs.has_cache,
        prefill=_phase(prefill, len(prefill), sum(rows) * num_prompt_tokens, done, is_read),
        decode=_phase(decode, num_decode, made, done, is_written) if num_decode else None,
        token_s=waited_s / num_decode if num_decode else None,
        loop_s=(waited_s - there_s) / num_decode if num_decode else None,
        cache_bytes=tuple(tuple(sum(spec.num_bytes for spec in group) for group in groups) for groups in caches),
        peak_memory_bytes=tuple(rank.peak_memory_bytes for rank in done),
    )


def joined(reports: Sequence[GenerationReport]) -> GenerationReport:
    """What is told of a `generate` in which transformers' loop began several times: sums, and the largest groups."""
    if len(reports) == 1:
        return reports[0]
    decodes = [(report, report.decode) for report in reports if report.decode]
    num_decode = sum(decode.num_steps for _, decode in decodes)
    largest = max(reports, key=lambda report: (sum(report.group_rows), sum(map(sum, report.cache_bytes))))
    return replace(
        largest,
        num_prompt_tokens=sum(report.num_prompt_tokens for report in reports),
        num_new_tokens=sum(report.num_new_tokens for report in reports),
        prefill=_summed([report.prefill for report in reports]),
        decode=_summed([decode for _, decode in decodes]) if decodes else None,
        token_s=sum((of.token_s or 0.0) * decode.num_steps for of, decode in decodes) / num_decode if decodes else None,
        loop_s=sum((of.loop_s or 0.0) * decode.num_steps for of, decode in decodes) / num_decode if decodes else None,
        peak_memory_bytes=tuple(map(max, zip(*(report.peak_memory_bytes for report in reports), strict=True))),
    )


def _summed(phases: Sequence[GenerationPhase]) -> GenerationPhase:
    return GenerationPhase(
        seconds=sum(phase.seconds for phase in phases),
        num_steps=sum(phase.num_steps for phase in phases),
        num_tokens=sum(phase.num_tokens for phase in phases),
        busy_s=tuple(map(sum, zip(*(phase.busy_s for phase in phases), strict=True))),
        moving_s=tuple(map(sum, zip(*(phase.moving_s for phase in phases), strict=True))),
    )


def _phase(
    passages: Sequence[Passage], num_steps: int, num_tokens: int, done: Sequence[Done], chosen: Sequence[bool]
) -> GenerationPhase:
    spent = [list(compress(rank.programs, chosen)) for rank in done]
    return GenerationPhase(
        seconds=(max(one.back_ns for one in passages) - min(one.sent_ns for one in passages)) * _NS,
        num_steps=num_steps,
        num_tokens=num_tokens,
        busy_s=tuple(sum(of.compute_ns for of in rank) * _NS for rank in spent),
        moving_s=tuple(sum(of.move_ns for of in rank) * _NS for rank in spent),
    )

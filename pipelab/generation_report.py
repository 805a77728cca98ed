"""What a generation did: how long prompts and tokens took, where that time went, and what the caches hold."""

from dataclasses import dataclass, field

from pipelab.plan import Plan, shorten
from pipelab.table import format_table, wrap
from pipelab.units import format_bytes, format_percent, format_seconds, plural


@dataclass(frozen=True, slots=True)
class GenerationPhase:
    """Prefill, in which prompts are read, or decode, in which one token of a row follows the other.

    Attributes:
        seconds: From the first step on its way until the last one is back.
        num_steps: How often a group of rows went through all stages.
        num_tokens: Tokens of all rows: those of the prompts, or those that were made.
        busy_s: Per stage, seconds it computed.
        moving_s: Per stage, seconds it copied values in and out.
    """

    seconds: float
    num_steps: int
    num_tokens: int
    busy_s: tuple[float, ...]
    moving_s: tuple[float, ...]

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second."""
        return self.num_tokens / self.seconds

    @property
    def busy_shares(self) -> tuple[float, ...]:
        """Per stage, the share of the time in which it computed."""
        return tuple(busy_s / self.seconds for busy_s in self.busy_s)

    @property
    def step_busy_s(self) -> tuple[float, ...]:
        """Per stage, seconds it computed for one group's step."""
        return tuple(busy_s / self.num_steps for busy_s in self.busy_s)


@dataclass(frozen=True)
class GenerationReport:
    """One measured call of `Pipeline.generate`.

    Where groups have loops of their own, some write while others still read: the phases may overlap.

    Attributes:
        plan: Where the model was cut.
        group_rows: Rows of each group that was under way.
        num_prompt_tokens: Tokens of a prompt, padding included.
        num_new_tokens: Tokens made per row.
        has_cache: Whether the ranks kept key-value caches; without, each step computed all tokens again.
        prefill: From the prompts to the first token of each row.
        decode: All further tokens; None where there were none.
        token_s: Seconds from one token of a row to its next, on average; None where there was one only.
        loop_s: The part of these in which the group was not in the ranks: transformers' own loop.
        cache_bytes: Per stage, bytes of the caches of each group.
        peak_memory_bytes: Per rank, the most memory it held beyond an idle rank's own.
    """

    plan: Plan = field(repr=False)
    group_rows: tuple[int, ...]
    num_prompt_tokens: int
    num_new_tokens: int
    has_cache: bool
    prefill: GenerationPhase
    decode: GenerationPhase | None
    token_s: float | None
    loop_s: float | None
    cache_bytes: tuple[tuple[int, ...], ...]
    peak_memory_bytes: tuple[int, ...]

    @property
    def overhead_s(self) -> float | None:
        """Seconds per token and stage in which neither a stage computed nor transformers' loop did.

        None where that says nothing: with several groups one waits for the others, and one token has no next.
        """
        if self.decode is None or self.token_s is None or self.loop_s is None or len(self.group_rows) > 1:
            return None
        return (self.token_s - self.loop_s - sum(self.decode.step_busy_s)) / self.plan.num_stages

    def __repr__(self) -> str:
        lines = [self._title, self._prefill_text, *([self._decode_text] if self.decode else [])]
        return "\n".join([*map(wrap, lines), self._table])

    @property
    def _title(self) -> str:
        rows = f"{plural(sum(self.group_rows), 'row')} in {plural(len(self.group_rows), 'group')}"
        tokens = f"{plural(self.num_prompt_tokens, 'token')} read and {self.num_new_tokens:,} made per row"
        caches = f"{format_bytes(sum(map(sum, self.cache_bytes)))} of KV cache" if self.has_cache else "no KV cache"
        return f"{self.plan.graph.model}: {rows} on {plural(self.plan.num_stages, 'rank')}, {tokens}, {caches}"

    @property
    def _prefill_text(self) -> str:
        return f"Prefill: {format_seconds(self.prefill.seconds)}, {_rate(self.prefill)}, {_busy(self.prefill)}."

    @property
    def _decode_text(self) -> str:
        assert self.decode is not None and self.token_s is not None and self.loop_s is not None
        text = f"Decode: {format_seconds(self.token_s)} from a token to the next, {_rate(self.decode)}"
        computing = format_seconds(sum(self.decode.step_busy_s))
        rest = (
            "" if self.overhead_s is None else f", and {format_seconds(self.overhead_s)} per rank go into passing it on"
        )
        return (
            f"{text}, {_busy(self.decode)}. Of a token's time the stages compute {computing}, transformers' loop takes "
            f"{format_seconds(self.loop_s)}{rest}."
        )

    @property
    def _table(self) -> str:
        columns = {
            "rank": [str(stage.index) for stage in self.plan.stages],
            "holds": [shorten(stage.labels) for stage in self.plan.stages],
            "prefill": [format_seconds(seconds) for seconds in self.prefill.busy_s],
        }
        if self.decode:
            columns["each token"] = [format_seconds(seconds) for seconds in self.decode.step_busy_s]
            columns["busy in decode"] = [format_percent(share) for share in self.decode.busy_shares]
        if self.has_cache:
            columns["KV cache"] = [format_bytes(sum(groups)) for groups in self.cache_bytes]
        columns["peak memory"] = [format_bytes(num_bytes) for num_bytes in self.peak_memory_bytes]
        return format_table(list(columns), list(zip(*columns.values(), strict=True)), left=(0, 1))


def _rate(phase: GenerationPhase) -> str:
    return f"{phase.tokens_per_s:,.0f} tokens per second"


def _busy(phase: GenerationPhase) -> str:
    """How much of the time the stages compute."""
    least, most = (format_percent(share) for share in (min(phase.busy_shares), max(phase.busy_shares)))
    return f"the stages busy {least if least == most else f'{least} to {most}'} of the time"

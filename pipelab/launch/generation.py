"""`Pipeline.generate`: transformers' own loop in the kernel, the model's steps in the ranks, rows in a ring."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipelab.errors import InputError
from pipelab.generation_report import GenerationReport
from pipelab.launch.counters import Stopped
from pipelab.launch.devices import Devices
from pipelab.launch.generation_record import Passage, joined, report_of
from pipelab.launch.group import Patience
from pipelab.launch.messages import Done
from pipelab.launch.programs import BEAMS, Programs
from pipelab.launch.ring_job import RingJob, rows_of_groups
from pipelab.launch.ring_wiring import RingWiring
from pipelab.launch.runner import Runner
from pipelab.plan import Plan
from pipelab.program import ValueSpec
from pipelab.token_steps import Kind, Lengths, TokenSteps

if TYPE_CHECKING:
    from pipelab.stand_in import RankCache

# Without a cache a step is given all tokens so far, padded to one of so many lengths: each is a program of its own.
_MOST_LENGTHS = 8


@dataclass(frozen=True)
class Ranks:
    """What runs a ring.

    Attributes:
        runner: Of the pipeline.
        devices: Where the ranks compute.
        patience: How long to wait for them.
        check: Called while waiting for new ranks; may raise.
    """

    runner: Runner
    devices: Devices
    patience: Patience
    check: Callable[[], None]

    def load(self, job: RingJob) -> RingWiring:
        """Have the ranks hold it."""
        return self.runner.load_ring(job, self.devices, self.patience, self.check)

    def flow(self, wiring: RingWiring, awaited: Callable[[], bool]) -> tuple[Done, ...]:
        """Have them run what is sent, until its end; `awaited`: whether anybody waits for them."""
        return self.runner.flow(wiring, replace(self.patience, awaited=awaited))


@dataclass(frozen=True)
class Demand:
    """What the first step of a loop tells of all that follow.

    Attributes:
        group_rows: Rows of each group, of this loop or another, as transformers' loop was given them.
        expansion: Rows of a step per such row: beams, or sequences to return.
        source: Shape of a row of the encoder's input; () without an encoder.
        num_read: Tokens per row that the first step reads: the encoder's, or else the prompt's.
        new: Tokens of the prompt per row.
        longest: The most tokens per row that a step will have seen.
        has_cache: Whether ranks keep caches.
        has_beams: Whether rows go on from other rows.
    """

    group_rows: tuple[int, ...]
    expansion: int
    source: tuple[int, ...]
    num_read: int
    new: int
    longest: int
    has_cache: bool
    has_beams: bool

    @property
    def step_rows(self) -> list[int]:
        """Rows of each group in a step."""
        return [rows * self.expansion for rows in self.group_rows]

    def steps_of(self, rows: int) -> list[tuple[Kind, Lengths]]:
        """The kinds of steps of a group of so many rows."""
        if self.has_cache:
            return [(kind, Lengths(rows, new, self.longest, self.source)) for kind, new in self._cached]
        return [("whole", Lengths(rows, new, new, self.source)) for new in self.lengths]

    @property
    def _cached(self) -> list[tuple[Kind, int]]:
        return [("prompt", self.new), ("next", 1)]

    @property
    def lengths(self) -> list[int]:
        """To how many tokens the steps without a cache are padded."""
        spread = -(-(self.longest - self.new) // (_MOST_LENGTHS - 1)) or 1
        return [min(length, self.longest) for length in range(self.new, self.longest + spread, spread)]


class Generation:
    """One call of `generate`: loops of transformers, each over one or more groups of rows.

    Args:
        steps: The model's steps.
        plan: Where the model is cut.
        ranks: What computes.
    """

    def __init__(self, steps: TokenSteps, plan: Plan, ranks: Ranks) -> None:
        self._steps = steps
        self._plan = plan
        self._ranks = ranks
        self._lock = threading.Lock()
        self._rounds: list[Round] = []
        self._is_given_up = False

    def run(self, loops: Sequence[Callable[[], Any]]) -> list[Any]:
        """The results of the loops, each in a thread of its own if there are several.

        Raises:
            Exception: What a loop raised, or what became of the ranks.
        """
        first: BaseException | None = None
        try:
            return _all_at_once(loops, self._hang_up)
        except BaseException as error:
            first = error
            raise
        finally:
            end = self._rounds[-1].end() if self._rounds else None
            # A loop says Stopped where the ranks are to tell why; whatever else one raises came first, and ended them.
            if end is not None and (first is None or isinstance(first, Stopped)):
                raise end from None

    @property
    def report(self) -> GenerationReport:
        """What it did, once it has run."""
        assert self._rounds, "transformers' loop begins with a step"
        return joined([each.report(self._plan) for each in self._rounds])

    def round_for(self, index: int, demand: Demand) -> "Round":
        """The ranks at work.

        Args:
            index: How often transformers' loop began before. Several loops begin once each: the first to ask tells
                what all of them need.
            demand: What it needs.

        Raises:
            Stopped: Another loop has failed, maybe at this.
        """
        with self._lock:
            if index == len(self._rounds) and not self._is_given_up:
                try:
                    self._begin(demand)
                except BaseException:
                    self._is_given_up = True
                    raise
            if self._is_given_up:
                raise Stopped
            return self._rounds[index]

    def _begin(self, demand: Demand) -> None:
        if self._rounds and (end := self._rounds[-1].end()):
            raise end
        wanted = [step for rows in dict.fromkeys(demand.step_rows) for step in demand.steps_of(rows)]
        programs = Programs(self._steps, self._plan, wanted, demand.step_rows, demand.has_beams)
        self._rounds.append(Round(self._ranks, programs, demand))

    def _hang_up(self) -> None:
        self._is_given_up = True
        if self._rounds:
            self._rounds[-1].wiring.hang_up()


class Round:
    """Ranks that run what is sent through the ring, watched by a thread.

    Args:
        ranks: What runs it.
        programs: What they run.
        demand: What they are made for.
    """

    def __init__(self, ranks: Ranks, programs: Programs, demand: Demand) -> None:
        self.wiring = ranks.load(programs.job)
        self._programs = programs
        self._demand = demand
        self._under_way: set[int] = set()
        self._passages: list[Passage] = []
        self._done: Sequence[Done] = ()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, args=(ranks,), daemon=True)
        self._thread.start()

    def _watch(self, ranks: Ranks) -> None:
        try:
            self._done = ranks.flow(self.wiring, lambda: bool(self._under_way))
        except BaseException as error:
            self._error = error
        finally:
            self.wiring.hang_up()

    def end(self) -> BaseException | None:
        """Have the ranks leave the ring; what became of them, if they did not."""
        with suppress(Stopped):  # they have left it, or are gone
            self.wiring.end()
        self._thread.join()
        self.wiring.close()
        return self._error

    def pass_through(self, kind: str, new: int, groups: Mapping[int, Mapping[str, Tensor]]) -> list[tuple[Tensor, ...]]:
        """What comes back of groups that are given these values.

        Args:
            kind: Of the step.
            new: Tokens per row it is given.
            groups: Per group, the values by name.

        Raises:
            Stopped: Nothing will come back.
        """
        numbers = {group: self._programs.number(kind, self._programs.job.group_rows[group], new) for group in groups}
        self._under_way.update(groups)
        sent_ns, results = {}, []
        for group, values in groups.items():
            specs = self._programs.job.programs[numbers[group]][0].inputs
            sent_ns[group] = time.perf_counter_ns()
            self.wiring.send(numbers[group], group, [_fitting(values[spec.name], spec) for spec in specs])
        for group, number in numbers.items():
            results.append(self.wiring.wait(number, group))
            self._passages.append(Passage(number, group, sent_ns[group], time.perf_counter_ns()))
        self._under_way.difference_update(groups)
        return results

    def report(self, plan: Plan) -> GenerationReport:
        """What was done, after the end."""
        demand = self._demand
        return report_of(plan, self._programs, demand.group_rows, demand.num_read, self._passages, self._done)


class Loop:
    """Computes the steps of one of transformers' loops: the `Computer` of its twin.

    A `generate` of the model's own may begin that loop several times: each is a round of its own, and may be of
    other rows.

    Args:
        generation: The call it is part of.
        group_rows: Rows of each group of the call.
        own: The groups that are this loop's; others have loops of their own.
        on_token: Called with the tokens made and the most there can be, after each step.
    """

    def __init__(
        self, generation: Generation, group_rows: Sequence[int], own: range, on_token: Callable[[int, int], None]
    ) -> None:
        self._generation = generation
        self._group_rows = tuple(group_rows)
        self._own = own
        self._on_token = on_token
        self._num_begun = 0
        self._demand: Demand | None = None
        self._settings: Any = None

    def begin(self, settings: Any) -> None:
        """Take what transformers has made of the arguments; None for one step alone."""
        self._settings = settings
        self._demand = None
        self._num_begun += 1

    @property
    def pad_token(self) -> int:
        """What follows a finished sequence; the result of a beam search has its end token go on if padding is 0."""
        padding = int(self._settings._pad_token_tensor)
        return padding if padding or self._settings.num_beams == 1 else int(self._settings._eos_token_tensor[0])

    def logits(self, tokens: Mapping[str, Tensor], source: Mapping[str, Tensor], cache: "RankCache | None") -> Tensor:
        """The logits of each row's last token, (rows, vocabulary)."""
        num_new, seen = tokens["input_ids"].shape[1], cache.num_seen if cache is not None else 0
        demand = self._demand = self._demand or self._first(tokens["input_ids"], source, cache)
        ranks = self._generation.round_for(self._num_begun - 1, demand)
        if cache is not None and cache.beams is not None:
            ranks.pass_through(BEAMS, 0, self._beams(cache.beams, demand))
        if cache is not None:
            kind: Kind = "next" if seen else "prompt"
            values, new = _cached_step(tokens, source, seen, demand.longest), num_new
        else:
            kind = "whole"
            new = next(length for length in demand.lengths if length >= num_new)
            values = _whole_step(tokens, source, num_new, new)
        groups = {group: _rows(values, start, stop) for group, start, stop in self._spans(demand)}
        results = ranks.pass_through(kind, new, groups)
        self._on_token(seen + num_new - demand.new + 1, demand.longest - demand.new + 1)
        return results[0][0] if len(results) == 1 else torch.cat([logits for (logits,) in results])

    def _first(self, ids: Tensor, source: Mapping[str, Tensor], cache: "RankCache | None") -> Demand:
        (rows, new), settings = ids.shape, self._settings
        expansion = max(settings.num_beams, settings.num_return_sequences) if settings else 1
        if rows != expansion * sum(self._group_rows[group] for group in self._own):
            num_groups = min(len(self._group_rows), rows // expansion)
            self._group_rows, self._own = tuple(rows_of_groups(rows // expansion, num_groups)), range(num_groups)
        return Demand(
            group_rows=self._group_rows,
            expansion=expansion,
            source=next((tuple(value.shape[1:]) for value in source.values()), ()),
            num_read=source.get("input_ids", ids).shape[1],
            new=new,
            longest=max(settings.max_length - 1, new) if settings else new,
            has_cache=cache is not None,
            has_beams=bool(settings) and settings.num_beams > 1,
        )

    def _spans(self, demand: Demand) -> list[tuple[int, int, int]]:
        """Each group with its first row and the one after its last."""
        bounds = accumulate((demand.step_rows[group] for group in self._own), initial=0)
        return [(group, *span) for group, span in zip(self._own, pairwise(bounds), strict=True)]

    def _beams(self, beams: Tensor, demand: Demand) -> dict[int, dict[str, Tensor]]:
        return {group: {BEAMS: beams[start:stop].long() - start} for group, start, stop in self._spans(demand)}


def _cached_step(
    tokens: Mapping[str, Tensor], source: Mapping[str, Tensor], seen: int, slots: int
) -> dict[str, Tensor]:
    """A step's values, with the mask over all slots."""
    mask = tokens["attention_mask"]
    over_all = {**tokens, "attention_mask": pad(mask, (0, slots - mask.shape[1]))}
    return {**_named(over_all, source), "num_seen": torch.tensor(seen)}


def _whole_step(
    tokens: Mapping[str, Tensor], source: Mapping[str, Tensor], num_tokens: int, length: int
) -> dict[str, Tensor]:
    """A step's values without a cache, with room behind the last token, which sees nothing of it."""
    behind = (0, length - num_tokens)
    values = {name: pad(value, behind, value=int(name.endswith("mask"))) for name, value in tokens.items()}
    return {**_named(values, source), "last": torch.tensor([num_tokens - 1])}


def _named(tokens: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The values under the names that the model's `forward` has for them."""
    return {**{f"decoder_{name}": value for name, value in tokens.items()}, **source} if source else tokens


def _fitting(value: Tensor, spec: ValueSpec) -> Tensor:
    """A value, once it is seen to be what the program takes."""
    if tuple(value.shape) != spec.shape:
        raise InputError(f"generate takes {spec.name} of shape {spec.shape} here; it is {tuple(value.shape)}.")
    return value


def _rows(values: Mapping[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """These rows of what has rows."""
    return {name: value[start:stop] if value.ndim > 1 else value for name, value in values.items()}


def _all_at_once(loops: Sequence[Callable[[], Any]], give_up: Callable[[], None]) -> list[Any]:
    """The results of all; where one raises, the others are to give up."""
    if len(loops) == 1:
        return [loops[0]()]
    with ThreadPoolExecutor(len(loops), thread_name_prefix="generate") as pool:
        futures = [pool.submit(copy_context().run, loop) for loop in loops]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.exception() for future in done):
            give_up()
    errors = [error for future in futures for error in [future.exception()] if error is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
        raise error
    return [future.result() for future in futures]

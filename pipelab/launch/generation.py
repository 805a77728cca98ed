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

from pipelab.generation_report import GenerationReport
from pipelab.launch.counters import Stopped
from pipelab.launch.devices import Devices
from pipelab.launch.generation_record import Passage, report_of
from pipelab.launch.group import Patience
from pipelab.launch.messages import Done
from pipelab.launch.programs import BEAMS, Programs
from pipelab.launch.ring_job import RingJob
from pipelab.launch.ring_wiring import RingWiring
from pipelab.launch.runner import Runner
from pipelab.plan import Plan
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
        expansion: Rows of a step per row the user passed: beams, or sequences to return.
        source: Tokens of the encoder's input per row; 0 without an encoder.
        new: Tokens of the prompt per row.
        longest: The most tokens per row that a step will have seen.
        has_cache: Whether ranks keep caches.
        has_beams: Whether rows go on from other rows.
    """

    expansion: int
    source: int
    new: int
    longest: int
    has_cache: bool
    has_beams: bool

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
        group_rows: Rows of each group, as the user passed them.
    """

    def __init__(self, steps: TokenSteps, plan: Plan, ranks: Ranks, group_rows: Sequence[int]) -> None:
        self._steps = steps
        self._plan = plan
        self._ranks = ranks
        self._group_rows = group_rows
        self._lock = threading.Lock()
        self._round: Round | None = None
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
            end = self._round.end() if self._round else None
            # A loop says Stopped where the ranks are to tell why; whatever else one raises came first, and ended them.
            if end is not None and (first is None or isinstance(first, Stopped)):
                raise end from None

    @property
    def report(self) -> GenerationReport:
        """What it did, once it has run."""
        assert self._round is not None, "transformers' loop begins with a step"
        return self._round.report(self._plan, self._group_rows)

    def round_for(self, demand: Demand) -> "Round":
        """The ranks at work; the first loop to ask tells what all of them need.

        Raises:
            Stopped: Another loop has failed, maybe at this.
        """
        with self._lock:
            if self._round is None and not self._is_given_up:
                try:
                    self._round = self._begun(demand)
                except BaseException:
                    self._is_given_up = True
                    raise
            if self._round is None or self._is_given_up:
                raise Stopped
            return self._round

    def _begun(self, demand: Demand) -> "Round":
        rows = [rows * demand.expansion for rows in self._group_rows]
        wanted = [step for number in dict.fromkeys(rows) for step in demand.steps_of(number)]
        programs = Programs(self._steps, self._plan, wanted, rows, demand.has_beams)
        return Round(self._ranks, programs, demand.source or demand.new)

    def _hang_up(self) -> None:
        self._is_given_up = True
        if self._round is not None:
            self._round.wiring.hang_up()


class Round:
    """Ranks that run what is sent through the ring, watched by a thread.

    Args:
        ranks: What runs it.
        programs: What they run.
        num_prompt_tokens: Tokens per row that the first step is given.
    """

    def __init__(self, ranks: Ranks, programs: Programs, num_prompt_tokens: int) -> None:
        self.wiring = ranks.load(programs.job)
        self._programs = programs
        self._num_prompt_tokens = num_prompt_tokens
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
            self.wiring.send(numbers[group], group, [values[spec.name] for spec in specs])
        for group, number in numbers.items():
            results.append(self.wiring.wait(number, group))
            self._passages.append(Passage(number, group, sent_ns[group], time.perf_counter_ns()))
        self._under_way.difference_update(groups)
        return results

    def report(self, plan: Plan, rows: Sequence[int]) -> GenerationReport:
        """What was done, after the end.

        Args:
            plan: Where the model is cut.
            rows: Rows of each group, as the user passed them.
        """
        return report_of(plan, self._programs, rows, self._num_prompt_tokens, self._passages, self._done)


class Loop:
    """Computes the steps of one of transformers' loops: the `Computer` of its twin.

    Args:
        generation: The call it is part of.
        groups: Its groups, by number, and the rows of each.
        on_token: Called with the tokens made and the most there can be, after each step.
    """

    def __init__(self, generation: Generation, groups: Mapping[int, int], on_token: Callable[[int, int], None]) -> None:
        self._generation = generation
        self._groups = groups
        self._on_token = on_token
        self._demand: Demand | None = None
        self._settings: Any = None

    def begin(self, settings: Any) -> None:
        """Take what transformers has made of the arguments."""
        self._settings = settings

    @property
    def pad_token(self) -> int:
        """What follows a finished sequence; the result of a beam search has its end token go on if padding is 0."""
        padding = int(self._settings._pad_token_tensor)
        return padding if padding or self._settings.num_beams == 1 else int(self._settings._eos_token_tensor[0])

    def logits(self, tokens: Mapping[str, Tensor], cache: "RankCache | None") -> Tensor:
        """The logits of each row's last token, (rows, vocabulary)."""
        ids = tokens.get("decoder_input_ids", tokens["input_ids"])
        demand = self._demand = self._demand or self._first(tokens, ids, cache)
        ranks = self._generation.round_for(demand)
        if cache is not None and cache.beams is not None:
            ranks.pass_through(BEAMS, 0, self._beams(cache.beams, demand))
        if cache is not None:
            seen = cache.num_seen
            kind: Kind = "next" if seen else "prompt"
            values, new = _cached_step(tokens, seen, demand.longest), ids.shape[1]
        else:
            seen, kind = 0, "whole"
            new = next(length for length in demand.lengths if length >= ids.shape[1])
            values = _whole_step(tokens, ids.shape[1], new)
        groups = {group: _rows(values, start, stop) for group, start, stop in self._spans(demand)}
        results = ranks.pass_through(kind, new, groups)
        self._on_token(seen + ids.shape[1] - demand.new + 1, demand.longest - demand.new + 1)
        return results[0][0] if len(results) == 1 else torch.cat([logits for (logits,) in results])

    def _first(self, tokens: Mapping[str, Tensor], ids: Tensor, cache: "RankCache | None") -> Demand:
        new = ids.shape[1]
        return Demand(
            expansion=ids.shape[0] // sum(self._groups.values()),
            source=tokens["input_ids"].shape[1] if "decoder_input_ids" in tokens else 0,
            new=new,
            longest=max(self._settings.max_length - 1, new),
            has_cache=cache is not None,
            has_beams=self._settings.num_beams > 1,
        )

    def _spans(self, demand: Demand) -> list[tuple[int, int, int]]:
        """Each group with its first row and the one after its last."""
        bounds = accumulate((rows * demand.expansion for rows in self._groups.values()), initial=0)
        return [(group, *span) for group, span in zip(self._groups, pairwise(bounds), strict=True)]

    def _beams(self, beams: Tensor, demand: Demand) -> dict[int, dict[str, Tensor]]:
        return {group: {BEAMS: beams[start:stop].long() - start} for group, start, stop in self._spans(demand)}


def _cached_step(tokens: Mapping[str, Tensor], seen: int, slots: int) -> dict[str, Tensor]:
    """A step's values, with the mask over all slots."""
    mask = "decoder_attention_mask" if "decoder_input_ids" in tokens else "attention_mask"
    over_all = pad(tokens[mask], (0, slots - tokens[mask].shape[1]))
    return {**tokens, mask: over_all, "num_seen": torch.tensor(seen)}


def _whole_step(tokens: Mapping[str, Tensor], num_tokens: int, length: int) -> dict[str, Tensor]:
    """A step's values without a cache, with room behind the last token, which sees nothing of it."""
    own = {"decoder_input_ids", "decoder_attention_mask"} if "decoder_input_ids" in tokens else set(tokens)
    behind = (0, length - num_tokens)
    values = {
        name: pad(value, behind, value=int(name.endswith("mask"))) if name in own else value
        for name, value in tokens.items()
    }
    return {**values, "last": torch.tensor([num_tokens - 1])}


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

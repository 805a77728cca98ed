"""What a controller tells a rank, and what the rank answers. Plain data over a private channel."""

from dataclasses import dataclass

from pipelab.events import Event
from pipelab.launch.memory import Place
from pipelab.program import StageTable


@dataclass(frozen=True)
class Hello:
    """The first message. Descriptors: the weights, the progress counters.

    Attributes:
        rank: Which rank this is.
        weights: Where each weight lies.
        weight_bytes: Size of their segment.
    """

    rank: int
    weights: tuple[Place, ...]
    weight_bytes: int


@dataclass(frozen=True)
class Edge:
    """What is at one end of a stage. Descriptors: the link's socket and its slots, or the whole batch's segment.

    Attributes:
        num_bytes: Size of the segment.
        is_link: Whether a neighbour is there; otherwise the whole batch.
        whole: Where each tensor of the whole batch lies.
        batched: Per tensor, whether micro-batches are slices of it.
    """

    num_bytes: int
    is_link: bool
    whole: tuple[Place, ...] = ()
    batched: tuple[bool, ...] = ()

    @property
    def num_descriptors(self) -> int:
        """How many descriptors belong to it."""
        return 2 if self.is_link else 1


@dataclass(frozen=True)
class Load:
    """Take this stage. Descriptors: those of `before`, then those of `after`.

    Attributes:
        tables: The stage for each micro-batch size.
        sizes: Rows of each micro-batch.
        before: Where values come from.
        after: Where values go.
        device: Where it runs.
        num_threads: Threads of an op.
    """

    tables: dict[int, StageTable]
    sizes: tuple[int, ...]
    before: Edge
    after: Edge
    device: str
    num_threads: int


@dataclass(frozen=True)
class Step:
    """Run all micro-batches once.

    Attributes:
        number: Unique in the life of the ranks.
    """

    number: int


@dataclass(frozen=True)
class Ready:
    """The stage is loaded, or the step was left as asked."""


@dataclass(frozen=True)
class Done:
    """The step is done.

    Attributes:
        events: What the rank did, in seconds of the machine's monotonic clock.
        peak_bytes: Most memory beyond an idle rank's own.
    """

    events: tuple[Event, ...]
    peak_bytes: int


@dataclass(frozen=True)
class Raised:
    """The stage raised.

    Attributes:
        module: Path of the module whose op raised; "" for the model itself.
        target: The op, or "" outside an op.
        error: Type and message.
        traceback: The rank's own traceback.
    """

    module: str
    target: str
    error: str
    traceback: str

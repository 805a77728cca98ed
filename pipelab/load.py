"""What else kept the cores busy while something was measured, and whether it mattered."""

from dataclasses import asdict, dataclass
from typing import Any

# A quiet machine of 2 cores shows up to 0.1 in half a second, one busy process 0.95 (benchmarks/truth.py).
_NOTABLE_CORES = 0.25
# Of many cores a little more is always in use.
_NOTABLE_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class OtherLoad:
    """Processor time that was not the measured processes' own.

    Attributes:
        others_cores: How many cores' worth other programs used.
        withheld_cores: How many cores' worth the host of a virtual machine gave to others.
        cores: Cores of the machine, of those that may be used.
        spare_cores: Cores that the measured processes leave to others.
        window_s: How long it was watched.

    Example:
        >>> from pipelab.load import OtherLoad
        >>> OtherLoad(others_cores=0.7, withheld_cores=0.0, cores=2, spare_cores=0, window_s=1.0).sentence
        'Other programs used 0.7 of 2 cores meanwhile: times may be too long.'
    """

    others_cores: float
    withheld_cores: float
    cores: int
    spare_cores: int
    window_s: float

    @property
    def disturbed(self) -> bool:
        """Whether times may be longer than on a quiet machine."""
        return self._others_disturbed or self._host_disturbed

    @property
    def sentence(self) -> str:
        """What disturbed, in a sentence; empty where nothing did."""
        if not self.disturbed:
            return ""
        others = f"Other programs used {self.others_cores:.1f} of {self.cores} cores meanwhile"
        host = f"he host of this virtual machine withheld {self.withheld_cores:.1f} of {self.cores} cores meanwhile"
        if self._others_disturbed and self._host_disturbed:
            return f"{others}, and t{host}: times may be too long."
        return f"{others if self._others_disturbed else 'T' + host}: times may be too long."

    @property
    def _others_disturbed(self) -> bool:
        return self.others_cores - self.spare_cores > self._notable_cores

    @property
    def _host_disturbed(self) -> bool:
        return self.withheld_cores > self._notable_cores

    @property
    def _notable_cores(self) -> float:
        return max(_NOTABLE_CORES, _NOTABLE_SHARE * self.cores)

    def __repr__(self) -> str:
        others, withheld = f"{self.others_cores:.2f}", f"{self.withheld_cores:.2f}"
        return f"OtherLoad({others} of {self.cores} cores by others, {withheld} withheld, in {self.window_s:.2g} s)"

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return asdict(self)

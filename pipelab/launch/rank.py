"""One rank, top to bottom: it is told which stage to hold, runs steps of it, and ends with its owner.

Where the server cannot fork it starts this as `python -m pipelab.launch.rank <control> <sentinel>`.
"""

import ctypes
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence

from pipelab.launch import gpu_memory, peak_memory
from pipelab.launch.channel import Channel, Gone
from pipelab.launch.counters import Stopped
from pipelab.launch.flow import RingStage, run_flow
from pipelab.launch.loading import Loader
from pipelab.launch.loop import Stage, run_step
from pipelab.launch.messages import Done, Failed, Flow, Gather, GivenUp, Join, Load, Loaded, Reply, RingLoad, Step

_PR_SET_PDEATHSIG = 1
_WATCH_S = 0.5


class Rank:
    """A process that holds one stage at a time.

    Args:
        control: Descriptor of the socket it is told by what to do.
        sentinel: Descriptor of a pipe that ends when its owner does.
    """

    def __init__(self, control: int, sentinel: int) -> None:
        self._channel = Channel(socket.socket(fileno=control))
        self._idle_bytes = peak_memory.held_bytes()
        self._loader: Loader | None = None
        self._stage: Stage | RingStage | None = None
        self._is_lost = False
        self._number = 0
        threading.Thread(target=self._watch, args=(sentinel,), daemon=True).start()

    def serve(self) -> None:
        """Do what is asked until nobody is left to ask."""
        while True:
            try:
                message, descriptors = self._channel.receive()
                if isinstance(message, Join):
                    self._loader = Loader(message, *descriptors)
                else:
                    self._channel.send(self._answer(message, descriptors))
                    if self._is_lost:
                        self._channel.close()  # seen at once, so that the next run starts new ranks
                        return
            except Gone:
                return

    def _watch(self, sentinel: int) -> None:
        """End this process with its owner, even in the middle of an op; say meanwhile how much it computes."""
        while not select.select([sentinel], [], [], _WATCH_S)[0]:
            if self._loader is not None and self._loader.counters is not None:
                self._loader.counters.publish_cpu(self._number)
        os._exit(1)

    def _answer(self, message: Gather | Load | Step | RingLoad | Flow, descriptors: Sequence[int]) -> Reply:
        try:
            match message:
                case Gather():
                    return self._gather(message, descriptors)
                case Load() | RingLoad():
                    return self._load(message, descriptors)
                case Step():
                    return self._step(message)
                case Flow():
                    return self._flow()
        except Stopped:
            return GivenUp()
        except Exception as error:
            now_ns = time.perf_counter_ns()
            op = self._stage.counters.current_op(self._stage.rank) if self._stage else None
            self._is_lost = self._stage is not None and gpu_memory.is_lost(self._stage.device)
            return Failed(f"{type(error).__name__}: {error}", op, traceback.format_exc(), now_ns)
        finally:
            if self._stage is not None:
                self._stage.counters.leave(self._stage.rank)

    def _load(self, load: Load | RingLoad, descriptors: Sequence[int]) -> Reply:
        assert self._loader is not None, "the weights come first"
        self._stage, self._number = None, load.rank
        peak_memory.give_back()
        self._stage = self._loader.load(load, descriptors)
        return Loaded()

    def _gather(self, wanted: Gather, descriptors: Sequence[int]) -> Reply:
        assert self._loader is not None, "the weights come first"
        self._loader.gather(wanted, descriptors)
        return Loaded()

    def _flow(self) -> Reply:
        assert isinstance(self._stage, RingStage), "the ring comes first"
        peak_memory.reset_peak(self._stage.device)
        programs = run_flow(self._stage)
        return Done((), peak_memory.peak_bytes(self._stage.device, self._idle_bytes), programs=programs)

    def _step(self, step: Step) -> Reply:
        assert isinstance(self._stage, Stage), "the stage comes first"
        peak_memory.reset_peak(self._stage.device)
        times_ns, op_s = run_step(self._stage, step)
        return Done(times_ns, peak_memory.peak_bytes(self._stage.device, self._idle_bytes), op_s)


def main(control: int, sentinel: int, server: int) -> None:
    """Be a rank of the server with this process id."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:  # it died before it could be asked for the signal
            return
    Rank(control, sentinel).serve()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))

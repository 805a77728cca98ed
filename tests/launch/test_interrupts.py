"""Ctrl-C that waits until no message is half read."""

import signal
import threading

import pytest

from pipelab.errors import Cancelled
from pipelab.launch.interrupts import HeldInterrupts


def test_it_comes_when_the_block_ends() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), HeldInterrupts() as held:
        signal.raise_signal(signal.SIGINT)
        assert held.pending
        done = True
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_comes_at_a_check() -> None:
    with pytest.raises(KeyboardInterrupt), HeldInterrupts() as held:
        held.check()
        signal.raise_signal(signal.SIGINT)
        held.check()
        raise AssertionError("not reached")


def test_a_check_does_not_tell_what_was_tried_meanwhile() -> None:
    """Ctrl-C while `start` waited was told with the BlockingIOError of a socket that had nothing to read yet."""
    with pytest.raises(KeyboardInterrupt) as caught, HeldInterrupts() as held:
        signal.raise_signal(signal.SIGINT)
        try:
            raise BlockingIOError
        except BlockingIOError:
            held.check()
    assert caught.value.__suppress_context__


def test_it_hides_how_the_run_was_stopped() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, HeldInterrupts():
        signal.raise_signal(signal.SIGINT)
        raise Cancelled
    assert caught.value.__suppress_context__


def test_a_handler_of_the_users_own_is_called() -> None:
    calls = []
    before = signal.signal(signal.SIGINT, lambda *_: calls.append(1))
    try:
        with HeldInterrupts():
            signal.raise_signal(signal.SIGINT)
            assert not calls
        assert calls == [1]
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_holds_nothing() -> None:
    handlers = []

    def body() -> None:
        with HeldInterrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]

"""Ending a run on purpose: Ctrl-C and SIGTERM let the step in progress finish, so that a checkpoint can be written."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger(__name__)


class TerminatedError(KeyboardInterrupt):
    """SIGTERM ended the run; like Ctrl-C it is no error."""

    exit_status = 128 + signal.SIGTERM


class StopRequest:
    """Whether somebody has asked the process to stop.

    Attributes:
        signal: the number of the signal; None: nobody has.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def exception(self) -> KeyboardInterrupt:
        """What to raise once everything is saved."""
        return TerminatedError() if self.signal == signal.SIGTERM else KeyboardInterrupt()


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Within this context the first SIGINT or SIGTERM is only noted, and the second acts as usual. Outside the main
    thread, where Python handles no signals, nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _frame: FrameType | None) -> None:
        request.signal = number
        for name, handler in before.items():  # a second signal does what it always did
            signal.signal(name, handler)
        if hasattr(signal, "SIGCHLD"):  # workers may have got the signal too: their end must not interrupt a step
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        logger.warning("stopping after this step; a second signal stops at once, without a checkpoint")

    before = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    for name in before:
        signal.signal(name, note)
    try:
        yield request
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def ignore_interrupts(_worker: int = 0) -> None:
    """For the workers of a loader: Ctrl-C reaches them too, but only the main process decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

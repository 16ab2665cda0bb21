"""Graceful stop on Ctrl-C or SIGTERM: the current training step finishes, so that a checkpoint can be written."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger(__name__)


class TerminatedError(KeyboardInterrupt):
    """SIGTERM stopped the run. Like KeyboardInterrupt, this is not an error of the program."""

    exit_status = 128 + signal.SIGTERM


class StopRequest:
    """Whether the process was asked to stop.

    Attributes:
        signal: number of the received signal; None if no stop was requested.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def exception(self) -> KeyboardInterrupt:
        """The exception to raise after the checkpoint is written."""
        return TerminatedError() if self.signal == signal.SIGTERM else KeyboardInterrupt()


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Records the first SIGINT or SIGTERM in the yielded request; a second signal gets its original handler. Outside
    the main thread, where Python handles no signals, the context does nothing."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def record(number: int, _frame: FrameType | None) -> None:
        request.signal = number
        for name, handler in original.items():  # a second signal gets the original handler
            signal.signal(name, handler)
        if hasattr(signal, "SIGCHLD"):  # loader workers may get the signal too; their exit must not interrupt a step
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        logger.warning("stopping after this step; a second signal stops at once, without a checkpoint")

    original = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    for name in original:
        signal.signal(name, record)
    try:
        yield request
    finally:
        for name, handler in original.items():
            signal.signal(name, handler)


def ignore_interrupts(_worker: int = 0) -> None:
    """Makes a data loader worker ignore Ctrl-C, since only the main process decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

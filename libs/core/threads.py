"""Threads on a CPU: how many there may be, and how they wait for each other."""

from __future__ import annotations

import os
import sys

# GNU's OpenMP, in the torch wheels for Linux, obeys the first; LLVM's and Intel's, for macOS and Windows, the second.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")  # the user has decided if one is set


def wait_passively() -> None:
    """Lets OpenMP's threads sleep while they wait, instead of spinning.

    Spinning threads hold the cores that another process, or their own late sibling, needs: beside one busy process
    training ran 10 to 26 times slower. The runtime reads these variables when torch is loaded, so this has to come
    first; it does nothing once torch is there, or where the user has set one of `CHOICES`.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in CHOICES):
        os.environ.update(PASSIVE)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

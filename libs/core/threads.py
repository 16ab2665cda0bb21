"""Threads on a CPU: how many there may be, and how they wait for each other."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Collection, MutableMapping

# GNU's OpenMP, in the torch wheels for Linux, obeys the first; LLVM's and Intel's, for macOS and Windows, the second.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")  # the user has decided if one is set
SAMPLES, PAUSE = 5, 0.01  # looks at the number of running processes, and seconds between them


def choose_waiting(environment: MutableMapping[str, str] = os.environ, modules: Collection[str] = sys.modules) -> None:
    """Lets OpenMP's threads sleep while they wait, instead of spinning, if other processes need the cores.

    Spinning threads hold the cores that another process, or their own late sibling, needs: beside one busy process
    training ran 4 times slower than with sleeping ones. On an idle machine it is the other way round, since waking a
    thread takes its time. The runtime reads these variables when torch is loaded, so this has to come first; it does
    nothing once torch is there, or where the user has set one of `CHOICES`.
    """
    if "torch" in modules or any(name in environment for name in CHOICES):
        return
    if running_processes() + available_cores() > (os.cpu_count() or 1):
        environment.update(PASSIVE)


def running_processes() -> int:
    """Processes and threads, beside this one, that run or want to run now, as far as the system tells."""
    try:
        counts = []
        for sample in range(SAMPLES):
            time.sleep(PAUSE if sample else 0)
            with open("/proc/loadavg", encoding="ascii") as file:  # "0.20 0.18 0.12 1/80 11206": 1 runs now
                counts.append(int(file.read().split()[3].split("/")[0]) - 1)
        return round(statistics.median(counts))
    except (OSError, ValueError, IndexError):
        return round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

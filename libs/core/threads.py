"""CPU threads: the number of usable cores, and whether OpenMP's waiting threads spin or sleep."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Collection, MutableMapping

# GNU's OpenMP (torch wheels for Linux) reads the first variable, LLVM's and Intel's (macOS, Windows) the second.
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")  # if the user has set one, it is kept
SAMPLES, PAUSE = 5, 0.01  # samples of the number of running processes, and seconds between them


def choose_waiting(environment: MutableMapping[str, str] = os.environ, modules: Collection[str] = sys.modules) -> None:
    """Makes OpenMP's threads sleep instead of spin while they wait, if other processes need the cores.

    Spinning threads occupy cores: beside one busy process, training with spinning threads was 4 times slower than with
    sleeping ones. On an idle machine spinning is faster, because waking a thread takes time. OpenMP reads the variables
    when torch is loaded, so call this function before importing torch. It does nothing if torch is already loaded or
    the user has set one of `CHOICES`.
    """
    if "torch" in modules or any(name in environment for name in CHOICES):
        return
    if running_processes() + available_cores() > (os.cpu_count() or 1):
        environment.update(PASSIVE)


def running_processes() -> int:
    """Number of other processes and threads that are running or ready to run; 0 if the system does not tell."""
    try:
        counts = []
        for sample in range(SAMPLES):
            time.sleep(PAUSE if sample else 0)
            with open("/proc/loadavg", encoding="ascii") as file:  # "0.20 0.18 0.12 1/80 11206": 1 process runs
                counts.append(int(file.read().split()[3].split("/")[0]) - 1)
        return round(statistics.median(counts))
    except (OSError, ValueError, IndexError):
        return round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

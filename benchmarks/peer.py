"""The peer of the benchmarks: the PyPI package `actionformer`, in a virtual environment of its own.

It is installed when a benchmark first needs it, never into this project's environment.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = "actionformer==1.5.0"
FOLDER = ROOT / ".bench" / "peer"


def peer_python() -> Path:
    """The Python interpreter of the peer's environment, which is created if it does not exist."""
    python = FOLDER / "bin" / "python"
    done = FOLDER / ".installed"
    if done.is_file():
        return python
    print(f"installing {PEER} into {FOLDER} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "setuptools", "wheel", "numpy", "torch", "h5py"], check=True)
    subprocess.run([*pip, "--no-build-isolation", PEER], check=True)
    done.touch()
    return python

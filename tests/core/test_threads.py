"""How OpenMP's threads wait: decided before torch is loaded, unless the user has decided."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libs.core.threads import CHOICES, available_cores

ROOT = Path(__file__).parents[2]


def variables(code, **given):
    """The variables that decide it, as a fresh process has them once `code` has run."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    code += f"\nimport json, os; print(json.dumps({{k: v for k, v in os.environ.items() if k in {CHOICES!r}}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | given, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


@pytest.mark.parametrize("code", ["import libs", "from libs.predictor import Predictor", "import actionformer_nt.cli"])
def test_threads_sleep_while_they_wait(code):
    assert variables(code) == PASSIVE


def test_the_user_decides():
    assert variables("import libs", OMP_WAIT_POLICY="ACTIVE") == {"OMP_WAIT_POLICY": "ACTIVE"}
    assert variables("import libs", GOMP_SPINCOUNT="1000") == {"GOMP_SPINCOUNT": "1000"}
    assert variables("import torch, libs") == {}  # too late: the runtime has read them


def test_the_runtime_obeys():
    """libgomp itself says what it has understood."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    done = subprocess.run(
        [sys.executable, "-c", "import libs, torch; torch.ones(1)"], env=environment | {"OMP_DISPLAY_ENV": "TRUE"},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this torch has another OpenMP runtime")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_cores_are_those_that_the_process_may_use():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        code += "from libs.core.threads import available_cores; print(available_cores())"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["1"]

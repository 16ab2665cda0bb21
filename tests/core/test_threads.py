"""How OpenMP's threads wait: decided before torch is loaded, by who else needs the cores, or by the user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libs.core import threads
from libs.core.threads import CHOICES, PASSIVE, available_cores, choose_waiting, running_processes

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("others", "own", "cores", "passive"),
    [(0, 2, 2, False), (1, 2, 2, True), (1, 1, 2, False), (2, 1, 2, True), (30, 4, 64, False), (1, 64, 64, True)],
)
def test_threads_sleep_where_there_are_more_than_cores(monkeypatch, others, own, cores, passive):
    monkeypatch.setattr(threads, "running_processes", lambda: others)
    monkeypatch.setattr(threads, "available_cores", lambda: own)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    environment: dict[str, str] = {}
    choose_waiting(environment, modules=[])
    assert environment == (PASSIVE if passive else {})
    for name in CHOICES:  # the user decides
        environment = {name: "1"}
        choose_waiting(environment, modules=[])
        assert environment == {name: "1"}
    environment = {}
    choose_waiting(environment, modules=["torch"])  # too late: the runtime has read them
    assert environment == {}


@pytest.fixture
def busy():
    """As many processes that do nothing but count as there are cores, and one more."""
    count = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    found = [subprocess.Popen(count, stdout=subprocess.PIPE) for _ in range((os.cpu_count() or 1) + 1)]
    for process in found:
        process.stdout.readline()
    yield
    for process in found:
        process.kill()
        process.wait()


@pytest.mark.skipif(not Path("/proc/loadavg").is_file(), reason="no /proc/loadavg")
@pytest.mark.parametrize(
    "code", ["import libs", "from libs.inference.predictor import Predictor", "import actionformer_nt.commands.main"]
)
def test_beside_busy_processes_the_runtime_is_told(busy, code):
    """libgomp itself says what it has understood."""
    assert running_processes() >= 2
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    code += f"\nimport json, os, torch; print(json.dumps({{k: v for k, v in os.environ.items() if k in {CHOICES!r}}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | {"OMP_DISPLAY_ENV": "TRUE"}, cwd=ROOT, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == PASSIVE
    if "OMP_WAIT_POLICY" in done.stderr:  # another runtime is silent
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_cores_are_those_that_the_process_may_use():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        code += "from libs.core.threads import available_cores; print(available_cores())"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["1"]

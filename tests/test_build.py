"""The kernels compile without warnings, and the switches of setup.py do what they say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
INCLUDE = Path(torch.__file__).parent / "include"
MACROS = ["-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPy_LIMITED_API=0x030A0000"]


def setup(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", *arguments], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_cpu_kernels_compile_without_warnings(tmp_path):
    command = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", *MACROS, "-isystem", str(INCLUDE)]
    done = subprocess.run(
        [*command, "-c", "csrc/nms_cpu.cpp", "-o", str(tmp_path / "x.o")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_cuda_kernels_compile_without_warnings(tmp_path):
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in (75, 80, 86, 89, 90)]
    strict = ["-Werror=all-warnings", "-Xcompiler=-fPIC,-Wall,-Wextra", "--fmad=false"]
    targets += ["-gencode=arch=compute_90,code=compute_90", "--threads=0"]
    command = ["nvcc", "-std=c++17", "-O1", *strict, *targets, *MACROS, "-DUSE_CUDA=1", f"-isystem={INCLUDE}"]
    command += ["-c", "csrc/nms_cuda.cu", "-o", str(tmp_path / "x.o")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout


def test_switches_of_setup():
    assert "libs._C" not in setup("--quiet", "build_ext", "--dry-run", NO_EXT="1").stdout
    bad = setup("--version", FORCE_CUDA="yes")
    assert bad.returncode != 0 and "FORCE_CUDA=yes: expected 0 or 1" in bad.stderr
    nowhere = setup("--version", FORCE_CUDA="1", PATH=os.path.dirname(sys.executable), CUDA_HOME="")
    if nowhere.returncode:  # where no toolkit is found at a usual place either
        assert "no nvcc was found" in nowhere.stderr or "no C++ compiler" in nowhere.stderr
    assert setup("--version", NO_EXT="1").stdout.strip().endswith("0.1.0")


def test_without_a_compiler_it_says_so_and_builds_nothing(tmp_path):
    done = setup("--version", PATH=str(tmp_path), CXX="")
    assert done.returncode == 0 and "no C++ compiler found: NMS will run in PyTorch" in done.stderr


def test_architectures(monkeypatch):
    code = "import runpy, sys; sys.argv = ['setup.py', '--version']; print(runpy.run_path('setup.py')['arch_flags']())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"TORCH_CUDA_ARCH_LIST": "8.0 9.0+PTX", "NO_EXT": "1"},
    )  # fmt: skip
    flags = [f"-gencode=arch=compute_{a}" for a in ("80,code=sm_80", "90,code=sm_90", "90,code=compute_90")]
    assert done.stdout.strip().splitlines()[-1] == str(flags)

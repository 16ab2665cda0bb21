"""The kernels compile without warnings, the switches of setup.py do what they say, and archives hold what they must."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
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


def extensions(**environment) -> list[str]:
    """The names of the extensions that setup.py hands to setuptools."""
    code = (
        "import runpy, setuptools; setuptools.setup = lambda **given: print([e.name for e in given['ext_modules']]); "
        "runpy.run_path('setup.py')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return re.findall(r"'([\w.]+)'", done.stdout.splitlines()[-1])


def test_switches_of_setup():
    assert extensions(NO_EXT="1") == []
    if shutil.which("g++"):
        assert extensions(NO_EXT="0", FORCE_CUDA="0") == ["libs._C"]
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


FOLDERS = ("actionformer_nt", "benchmarks", "configs", "csrc", "docs", "libs", "tests", "tools")


def build(what: str, source: Path, out: Path, **options) -> Path:
    """Makes an archive as `pip` or `python -m build` do, without compilers; `what`: a function of build_meta."""
    out.mkdir()
    code = f"import sys; from setuptools import build_meta; build_meta.{what}(sys.argv[1], **{options})"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=source, env=os.environ | {"NO_EXT": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return next(out.iterdir())


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the repository's files, as in a new clone."""
    folder = tmp_path_factory.mktemp("sources")
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, folder)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "runs", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def from_archive(sources, tmp_path_factory):
    """What the source archive holds."""
    folder = tmp_path_factory.mktemp("sdist")
    for made in ("csrc/module.so", "tests/__pycache__/x.pyc", "docs/results/hapt/runs/log.txt"):
        (sources / made).parent.mkdir(exist_ok=True)
        (sources / made).touch()
    with tarfile.open(build("build_sdist", sources, folder / "dist")) as archive:
        archive.extractall(folder, filter="data")
    for made in ("csrc/module.so", "tests/__pycache__/x.pyc", "docs/results/hapt/runs/log.txt"):
        (sources / made).unlink()
    return next(path for path in folder.iterdir() if path.name != "dist")


@pytest.fixture(scope="module")
def from_wheel(from_archive, tmp_path_factory):
    """What a wheel that is made of the source archive installs."""
    folder = tmp_path_factory.mktemp("wheel")
    zipfile.ZipFile(build("build_wheel", from_archive, folder / "dist")).extractall(folder / "site")
    return folder / "site"


def test_the_source_archive_is_complete_whatever_the_machine_can_build(sources, from_archive):
    for name in FOLDERS:
        assert files(from_archive / name) == files(sources / name), name
    assert "nms_cuda.cu" in files(from_archive / "csrc")
    assert {"Makefile", "constraints.txt", "LICENSE", "setup.py", "pyproject.toml"} <= files(from_archive)


def command(*arguments: str, cwd: Path, path: Path, python=()) -> subprocess.CompletedProcess:
    """Runs the command line of the packages in `path`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, *(python or ("-m", "actionformer_nt")), *arguments], cwd=cwd, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip


def test_a_wheel_brings_its_configurations(from_wheel, tmp_path):
    assert not {"configs", "tests", "csrc", "docs"} & {path.name for path in from_wheel.iterdir()}
    listed = command("configs", cwd=tmp_path, path=from_wheel)
    assert listed.returncode == 0, listed.stderr
    assert set(listed.stdout.split()) == {f"configs/{name}" for name in files(ROOT / "configs")}

    assert command("configs", "project", cwd=tmp_path, path=from_wheel).returncode == 0
    copies = tmp_path / "project" / "configs"
    assert files(copies) == files(ROOT / "configs")
    for name in files(copies):
        assert (copies / name).read_bytes() == (ROOT / "configs" / name).read_bytes()
    named = {
        n for path in copies.rglob("*.yaml") for n in re.findall(r"configs/[\w./-]+\.(?:json|yaml)", path.read_text())
    }
    assert len(named) > 10 and all((tmp_path / "project" / name).is_file() for name in named)
    code = (
        "from libs.core import load_config; from actionformer_nt.protocol.splits import read_split; "
        "split = load_config('configs/semi/hapt_05.yaml')['semi_cfg']['split']; "
        "print(len(read_split(split['file'], split['ratio'], 0).labeled))"
    )
    used = command(cwd=tmp_path / "project", path=from_wheel, python=("-c", code))
    assert used.returncode == 0 and int(used.stdout) > 0, used.stderr


def test_a_wheel_brings_the_page_of_the_report(from_wheel, tmp_path):
    code = "from actionformer_nt.report.page import WEB, render; print(WEB, render({'name': '</script>'}))"
    done = command(cwd=tmp_path, path=from_wheel, python=("-c", code))
    assert done.returncode == 0 and done.stdout.startswith(str(from_wheel)), done.stderr
    assert '<script type="application/json" id="data">{"name":"\\u003c/script>"}</script>' in done.stdout
    assert "{{" not in done.stdout and all(part in done.stdout for part in (":root {", "getElementById"))


@pytest.mark.parametrize("mode", ["lenient", "strict"])
def test_an_editable_installation_finds_the_configurations_of_its_checkout(mode, sources, tmp_path):
    made = build("build_editable", sources, tmp_path / "dist", config_settings={"editable_mode": mode})
    zipfile.ZipFile(made).extractall(tmp_path / "site")
    assert not [name for name in files(tmp_path / "site") if name.endswith(".yaml")]
    assert not (sources / "actionformer_nt" / "configs").exists()
    demo = sources / "configs" / "demo.yaml"
    before = demo.read_bytes()
    with demo.open("ab") as file:  # what is edited there counts
        file.write(b"# edited")
    code = (
        "import site, sys, sysconfig; sys.path.append(sysconfig.get_path('purelib')); "
        "site.addsitedir(sys.argv.pop(1)); from actionformer_nt.commands.main import main; main(sys.argv[1:])"
    )
    start = ("-S", "-c", code, str(tmp_path / "site"))  # -S: without the environment's own installation
    done = command("configs", "copy", cwd=tmp_path, path=tmp_path, python=start)
    edited = demo.read_bytes()
    demo.write_bytes(before)
    shutil.rmtree(sources / "build", ignore_errors=True)
    assert files(tmp_path / "copy" / "configs") == files(ROOT / "configs"), done.stderr
    assert (tmp_path / "copy" / "configs" / "demo.yaml").read_bytes() == edited != before

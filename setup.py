"""Builds the NMS kernels: `libs._C` (CPU) and `libs._C_cuda`, both against the stable ABI of torch >= 2.10.

Environment:
    NO_EXT=1              build nothing; NMS then runs in PyTorch.
    FORCE_CUDA=1 | 0      build the CUDA kernels, or not (default: where a CUDA toolkit is found).
    CUDA_HOME             the toolkit.
    TORCH_CUDA_ARCH_LIST  architectures such as "8.0;9.0+PTX".
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

TORCH_TARGET = "0x020a000000000000"  # torch 2.10: the oldest that the kernels run on
PYTHON_TARGET = "0x030A0000"  # Python 3.10
DEFAULT_ARCHS = "7.5;8.0;8.6;8.9;9.0+PTX"


def find_nvcc() -> str | None:
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if home and (Path(home) / "bin" / "nvcc").is_file():
            return str(Path(home) / "bin" / "nvcc")
    return shutil.which("nvcc")


def cuda_wanted() -> bool:
    choice = os.environ.get("FORCE_CUDA", "")
    if choice not in ("", "0", "1"):
        sys.exit(f"FORCE_CUDA={choice}: expected 0 or 1")
    if choice == "1" and find_nvcc() is None:
        sys.exit("FORCE_CUDA=1, but no nvcc was found: set CUDA_HOME")
    return choice == "1" or (choice == "" and os.name == "posix" and find_nvcc() is not None)


def has_compiler() -> bool:
    if os.name != "posix":
        return True  # left to setuptools to find
    compiler = os.environ.get("CXX", "").split() or ["c++"]
    return any(shutil.which(name) for name in (compiler[0], "g++", "clang++"))


def extensions() -> list[Extension]:
    if os.environ.get("NO_EXT") == "1":
        return []
    if not has_compiler():
        print("no C++ compiler found: NMS will run in PyTorch, which is slower", file=sys.stderr)
        return []
    try:
        import torch
    except ModuleNotFoundError:
        sys.exit("torch must be installed before the kernels are built: pip install torch, or set NO_EXT=1")
    root = Path(torch.__file__).parent
    shared = dict(
        include_dirs=[str(root / "include"), "csrc"],
        library_dirs=[str(root / "lib")],
        libraries=["torch_cpu", "c10"],
        depends=["csrc/nms.h", "csrc/nms_ops.h"],
        language="c++",
        py_limited_api=True,
    )
    macros = [("TORCH_TARGET_VERSION", TORCH_TARGET), ("Py_LIMITED_API", PYTHON_TARGET)]
    flags = (
        ["/std:c++17", "/O2"]
        if os.name == "nt"
        else ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]
    )
    flags += os.environ.get("NMS_FLAGS", "").split()
    found = [
        Extension(
            "libs._C",
            ["csrc/nms_cpu.cpp", "csrc/module.cpp"],
            define_macros=macros,
            extra_compile_args=flags,
            extra_link_args=os.environ.get("NMS_FLAGS", "").split(),
            **shared,
        )
    ]
    if cuda_wanted():
        macros = [*macros, ("USE_CUDA", "1"), ("MODULE_NAME", "_C_cuda")]
        found.append(Extension("libs._C_cuda", ["csrc/nms_cuda.cu", "csrc/module.cpp"], define_macros=macros, **shared))
    return found


def arch_flags() -> list[str]:
    """TORCH_CUDA_ARCH_LIST -> nvcc's options."""
    flags = []
    for entry in os.environ.get("TORCH_CUDA_ARCH_LIST", DEFAULT_ARCHS).replace(" ", ";").split(";"):
        number = entry.removesuffix("+PTX").replace(".", "")
        if not number:
            continue
        codes = [f"sm_{number}"] + ([f"compute_{number}"] if entry.endswith("+PTX") else [])
        flags += [f"-gencode=arch=compute_{number},code={code}" for code in codes]
    return flags


class Build(build_ext):
    def build_extension(self, ext: Extension) -> None:
        if ext.name.endswith("_cuda"):
            self.build_cuda(ext)
        else:
            super().build_extension(ext)

    def build_cuda(self, ext: Extension) -> None:
        """One call of nvcc, with the CUDA runtime linked in: the library serves every CUDA that torch was built for."""
        from sysconfig import get_path

        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as stub:
            # Built on a torch without CUDA, the library still has to name libtorch_cuda, where the one that runs it
            # keeps the current stream; an empty one stands in for it at link time.
            empty = ["gcc", "-shared", "-Wl,-soname,libtorch_cuda.so", "-x", "c", "/dev/null", "-o"]
            subprocess.run([*empty, f"{stub}/libtorch_cuda.so"], check=True)
            command = [
                find_nvcc(), "-shared", "-std=c++17", "-O3", "--fmad=false", "--threads=0", "-cudart=static",
                "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra",
                "-Xlinker=--exclude-libs,ALL,--no-as-needed,--allow-shlib-undefined",
                *arch_flags(),
                *(f"-D{name}={value}" for name, value in ext.define_macros),
                *(f"-I{folder}" if folder == "csrc" else f"-isystem={folder}" for folder in ext.include_dirs),
                f"-isystem={get_path('include')}",
                *ext.sources,
                *(f"-L{folder}" for folder in [*ext.library_dirs, stub]),
                *(f"-l{name}" for name in [*ext.libraries, "torch_cuda"]),
                "-o", str(target),
            ]  # fmt: skip
            print(" ".join(command), flush=True)
            subprocess.run(command, check=True)


class BuildPython(build_py):
    """Puts a copy of configs/ into the package, for installations that have no checkout beside it."""

    def run(self) -> None:
        super().run()
        target = Path(self.build_lib) / "actionformer_nt" / "configs"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree("configs", target)


found = extensions()
setup(
    packages=find_packages(include=["libs*", "actionformer_nt*"]),
    py_modules=["nms_1d_cpu"],
    ext_modules=found,
    cmdclass={"build_ext": Build, "build_py": BuildPython},
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if found else {},
)

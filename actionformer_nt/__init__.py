"""Temporal action localization with few labels.

    import actionformer_nt as ant

    folder = ant.train("configs/demo.yaml", "ckpt/demo")
    table = ant.Predictor.from_checkpoint(folder)("my_video.npy", fps=30, threshold=0.3)

Importing this package registers the section `semi_cfg` and the architecture SPOT. The public names are loaded at their
first use, so importing is cheap.
"""

import importlib
import importlib.util
import os
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actionformer_nt.methods import list_methods
    from actionformer_nt.run import evaluate, train
    from libs.core import load_config
    from libs.inference.predictor import Predictor

    __version__: str

__all__ = ["Predictor", "__version__", "evaluate", "list_methods", "load_config", "train"]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _check_libs() -> None:
    """Checks that `import libs` finds the package beside this one, because other repositories, such as ActionFormer's,
    also have a package `libs`.

    Raises:
        ImportError: another `libs` comes first on Python's path. A command prints one line and exits with status 2.
    """
    expected, imported = os.path.join(ROOT, "libs"), None
    if spec := importlib.util.find_spec("libs"):
        imported = next(iter(spec.submodule_search_locations or ()), spec.origin)
    if imported is None:
        message = f"this package's own 'libs' is missing, expected at {expected}: install it again"
    elif imported == expected or (os.path.exists(expected) and os.path.samefile(imported, expected)):
        return
    else:
        message = (
            f"another 'libs', at {imported}, stands on Python's path before this package's own at {expected}: "
            f"run in another folder, or take {os.path.dirname(imported)} off PYTHONPATH"
        )
    if not _is_command():
        raise ImportError(message)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _is_command() -> bool:
    """Whether this process is the installed command, a script of `tools/` or `python -m actionformer_nt`."""
    folder, name = os.path.split(os.path.abspath("".join(sys.argv[:1])))
    in_tools = folder == os.path.join(ROOT, "tools")
    as_module = ("-m", "actionformer_nt") in pairwise(sys.orig_argv)
    return name.startswith("actionformer-nt") or in_tools or as_module


_check_libs()

from libs.core import register_architecture, register_config_section  # noqa: E402

register_config_section("semi_cfg", "actionformer_nt.config:SemiSection")
register_architecture("LocPointTransformer", self_training="actionformer_nt.self_training.pyramid:PyramidSelfTraining")
register_architecture(
    "SPOT",
    schema="actionformer_nt.spot.schema:SpotSection",
    model="actionformer_nt.spot.meta_arch:Spot",
    self_training="actionformer_nt.spot.self_training:SpotSelfTraining",
)

_HOME = {
    "Predictor": "libs.inference.predictor",
    "evaluate": "actionformer_nt.run",
    "list_methods": "actionformer_nt.methods",
    "load_config": "libs.core",
    "train": "actionformer_nt.run",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("actionformer-nt")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

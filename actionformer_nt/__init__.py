"""The plug-in: everything that is semi-supervised, the SPOT architecture, and the command line.

Importing it registers what a configuration may hold beyond ActionFormer's sections, and loads nothing else.
"""

import importlib.util
import os
import sys
from itertools import pairwise

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _check_libs() -> None:
    """`libs` must be the package beside this one: ActionFormer's repository, and many others, have one of that name,
    and whatever stands first on Python's path is imported.

    Raises:
        ImportError: it is another. A command ends with one line and exit status 2 instead.
    """
    own, found = os.path.join(ROOT, "libs"), None
    if spec := importlib.util.find_spec("libs"):
        found = next(iter(spec.submodule_search_locations or ()), spec.origin)
    if found is None:
        message = f"this package's own 'libs' is missing, expected at {own}: install it again"
    elif found == own or (os.path.exists(own) and os.path.samefile(found, own)):
        return
    else:
        message = (
            f"another 'libs', at {found}, stands on Python's path before this package's own at {own}: "
            f"run in another folder, or take {os.path.dirname(found)} off PYTHONPATH"
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

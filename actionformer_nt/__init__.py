"""The plug-in: everything that is semi-supervised, and the command line."""

from . import config as _config  # noqa: F401  (registers the section semi_cfg)
from . import spot as _spot  # noqa: F401  (registers the schema of model_name: SPOT)

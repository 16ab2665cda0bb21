from . import backbones, build, necks  # noqa: F401  (they register architectures, backbones and necks)
from .registry import make_backbone, make_meta_arch, make_neck, register_backbone, register_meta_arch, register_neck

__all__ = [
    "make_backbone",
    "make_meta_arch",
    "make_neck",
    "register_backbone",
    "register_meta_arch",
    "register_neck",
]

from . import backbones, heads, meta_archs, necks  # noqa: F401  (registers what they hold)
from .registry import make_backbone, make_meta_arch, make_neck, register_backbone, register_meta_arch, register_neck

__all__ = [
    "make_backbone",
    "make_meta_arch",
    "make_neck",
    "register_backbone",
    "register_meta_arch",
    "register_neck",
]

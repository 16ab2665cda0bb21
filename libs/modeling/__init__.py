"""Networks by name, and the registries that a plug-in adds its own to."""

from typing import Any

from libs.core.registry import BACKBONES, META_ARCHS, NECKS

from . import backbones, necks  # noqa: F401  (registers what they hold)

__all__ = [
    "make_backbone",
    "make_meta_arch",
    "make_neck",
    "register_backbone",
    "register_meta_arch",
    "register_neck",
]

register_meta_arch, register_backbone, register_neck = META_ARCHS.register, BACKBONES.register, NECKS.register
make_backbone, make_neck = BACKBONES.build, NECKS.build


def make_meta_arch(name: str, **kwargs: Any) -> Any:
    """Builds an architecture from the `model` section of a resolved configuration."""
    return META_ARCHS.build(name, **kwargs)

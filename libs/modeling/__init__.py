"""Builds networks by name, and registers the networks of plug-ins."""

from typing import Any

from libs.core.registry import BACKBONES, META_ARCHS, NECKS

from . import backbones, necks  # noqa: F401  (registers backbones and necks)

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
    """Builds a detector.

    Args:
        name: `model_name` of a resolved configuration.
        kwargs: its `model` section.

    Raises:
        ValueError: unknown name.
    """
    return META_ARCHS.build(name, **kwargs)

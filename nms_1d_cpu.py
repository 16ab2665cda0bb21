"""The two functions of ActionFormer's compiled extension, under its name, for code that imports it."""

from libs.nms.suppress import nms as nms
from libs.nms.suppress import softnms as softnms

__all__ = ["nms", "softnms"]

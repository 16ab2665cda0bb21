"""The two functions of ActionFormer's compiled extension, under its name, for code that imports it."""

from libs.utils.nms import nms as nms
from libs.utils.nms import softnms as softnms

__all__ = ["nms", "softnms"]

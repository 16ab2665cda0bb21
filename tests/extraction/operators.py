"""Declares torchvision's operators where its build lacks them.

The index's torchvision is built for CUDA. Beside a torch for CPUs it lacks its operators, and cannot be imported; its
video networks and transforms do without them.
"""

import sys
from types import ModuleType

import torch

OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "_roi_align_backward": "(Tensor grad, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int batch_size, int channels, int height, int width, int sampling_ratio, bool aligned) -> Tensor",
}
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def import_torchvision() -> ModuleType:
    """torchvision, with operators that only have a name if its own are not there."""
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name, schema in OPERATORS.items():
            LIBRARY.define(name + schema)
        import torchvision
    return torchvision

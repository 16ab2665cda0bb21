"""ActionFormer's name for non-maximum suppression."""

from libs.nms.suppress import batched_nms, nms, nms_1d, nms_videos, soft_nms_1d, softnms

__all__ = ["batched_nms", "nms", "nms_1d", "nms_videos", "soft_nms_1d", "softnms"]

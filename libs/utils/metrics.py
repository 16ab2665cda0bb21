"""ActionFormer's name for the evaluator."""

from libs.evaluation.anet_detection import ANETdetection

__all__ = ["ANETdetection"]

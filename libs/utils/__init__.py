"""The names that ActionFormer's scripts import; what they name lives in the packages beside this one."""

from libs.core.seeding import fix_random_seed
from libs.evaluation.anet_detection import ANETdetection
from libs.evaluation.predict import predict, valid_one_epoch
from libs.nms.suppress import batched_nms
from libs.training.checkpoint import find_checkpoint, load_checkpoint, load_state, save_checkpoint
from libs.training.ema import ModelEma
from libs.training.epoch import train_one_epoch
from libs.training.optim import make_optimizer, make_scheduler
from libs.training.update import NonFiniteLossError

from . import metrics, nms, train_utils

__all__ = [
    "ANETdetection",
    "ModelEma",
    "NonFiniteLossError",
    "batched_nms",
    "find_checkpoint",
    "fix_random_seed",
    "load_checkpoint",
    "load_state",
    "make_optimizer",
    "make_scheduler",
    "metrics",
    "nms",
    "predict",
    "save_checkpoint",
    "train_one_epoch",
    "train_utils",
    "valid_one_epoch",
]

"""ActionFormer's name for what training and evaluation consist of."""

from libs.core.seeding import fix_random_seed
from libs.evaluation.predict import predict, valid_one_epoch
from libs.training.checkpoint import save_checkpoint
from libs.training.ema import ModelEma
from libs.training.epoch import train_one_epoch
from libs.training.optim import make_optimizer, make_scheduler
from libs.training.update import NonFiniteLossError

__all__ = [
    "ModelEma",
    "NonFiniteLossError",
    "fix_random_seed",
    "make_optimizer",
    "make_scheduler",
    "predict",
    "save_checkpoint",
    "train_one_epoch",
    "valid_one_epoch",
]

from .checkpoint import find_checkpoint, load_checkpoint, load_state, save_checkpoint
from .metrics import ANETdetection
from .nms import batched_nms
from .optim import ModelEma, make_optimizer, make_scheduler
from .seeding import fix_random_seed
from .train_utils import NonFiniteLossError, predict, train_one_epoch, valid_one_epoch

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
    "predict",
    "save_checkpoint",
    "train_one_epoch",
    "valid_one_epoch",
]

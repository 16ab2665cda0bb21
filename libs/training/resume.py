"""Training state -> checkpoint, and checkpoint -> training state or model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from libs.core.types import Config
from libs.modeling import make_meta_arch

from .checkpoint import PREFIX, Checkpoint, load_checkpoint, load_state
from .ema import ModelEma
from .epoch import PartOfEpoch
from .run_folder import LAST
from .update import Updater

logger = logging.getLogger(__name__)


def training_state(epoch: int, updater: Updater, ema: ModelEma) -> Checkpoint:
    """A checkpoint after `epoch` completed epochs: ActionFormer's keys and the further keys for exact resuming."""
    scheduler = updater.scheduler
    return {
        "epoch": epoch,
        "state_dict": {PREFIX + name: value for name, value in updater.model.state_dict().items()},
        "state_dict_ema": {PREFIX + name: value for name, value in ema.module.state_dict().items()},
        "optimizer": updater.optimizer.state_dict(),
        "scheduler": {
            "last_epoch": scheduler.last_epoch,
            "base_lrs": list(scheduler.base_lrs),
            "warmup_epochs": scheduler.warmup_epochs,
            "max_epochs": scheduler.max_epochs,
        },
        "loss_normalizer": updater.model.loss_normalizer,
        "ema_num_updates": ema.num_updates,
        "scaler": updater.scaler.state_dict(),
    }


def only_weights(state: Checkpoint) -> Checkpoint:
    """A copy of a checkpoint without the keys that only resuming needs."""
    return {
        "epoch": state["epoch"],
        "state_dict": state["state_dict"],
        "state_dict_ema": state["state_dict_ema"],
        "loss_normalizer": state["loss_normalizer"],
        "ema_num_updates": state["ema_num_updates"],
    }


def restore(
    path: Path,
    updater: Updater,
    ema: ModelEma,
    *,
    iters_per_epoch: int,
    with_optimizer: bool = True,
    with_extra: bool = True,
) -> tuple[int, PartOfEpoch | None]:
    """Loads a checkpoint, ours or ActionFormer's, into model, optimizer, schedule and averaged weights.

    Args:
        iters_per_epoch: iterations of an epoch now.
        with_optimizer: False: optimizer and schedule stay as they are.
        with_extra: False: modules that only training uses stay as they are.

    Returns:
        The number of completed epochs, and the progress within the next one if training was stopped there.

    Raises:
        ValueError: keys are missing, or weights or optimizer belong to another configuration.
    """
    model = updater.model
    checkpoint = load_checkpoint(path)
    missing = [key for key in ("epoch", "state_dict_ema", "optimizer", "scheduler") if key not in checkpoint]
    if missing:
        raise ValueError(
            f"{path}: cannot resume from it: keys {missing} are missing. {LAST} has them; numbered checkpoints have "
            "them with train_cfg.numbered_checkpoints: full"
        )
    load_state(model, checkpoint["state_dict"], source=str(path), with_extra=with_extra)
    load_state(ema.module, checkpoint["state_dict_ema"], source=str(path), with_extra=with_extra)
    if with_optimizer:
        _restore_optimizer(path, updater, checkpoint)
    if checkpoint.get("scaler"):
        updater.scaler.load_state_dict(checkpoint["scaler"])
    epoch = int(checkpoint["epoch"])
    ema.num_updates = int(checkpoint.get("ema_num_updates", epoch * iters_per_epoch))
    if "loss_normalizer" in checkpoint:
        model.loss_normalizer = checkpoint["loss_normalizer"]
    else:
        logger.warning("%s holds no loss normaliser: it restarts from train_cfg.init_loss_norm", path)
    logger.info("resumed from %s, %d completed", path, epoch)
    part = PartOfEpoch(**checkpoint["part_of_epoch"]) if checkpoint.get("part_of_epoch") else None
    if part is not None and part.length != iters_per_epoch:
        logger.warning(
            "%s: an epoch had %d iterations, now it has %d: the one in which training was stopped begins anew",
            path, part.length, iters_per_epoch,
        )  # fmt: skip
        part = None
    return epoch, part


def _restore_optimizer(path: Path, updater: Updater, checkpoint: Checkpoint) -> None:
    optimizer = updater.optimizer
    present, stored = (
        {key for group in o["param_groups"] for key in group} for o in (optimizer.state_dict(), checkpoint["optimizer"])
    )
    if {"betas", "momentum"} & present != {"betas", "momentum"} & stored:
        raise ValueError(f"{path}: its optimizer is of another kind than opt.type: '{type(optimizer).__name__}'")
    optimizer.load_state_dict(checkpoint["optimizer"])
    updater.scheduler.load_state_dict(checkpoint["scheduler"])


def load_model(config: Config, path: str | Path, *, weights: str = "ema", checkpoint: Checkpoint | None = None) -> Any:
    """Builds the model of a resolved configuration, with the weights of a checkpoint, in evaluation mode on the CPU.

    Args:
        weights: "ema" for the averaged weights, "raw" for the trained ones.
        checkpoint: content of the file if it has been read already.

    Raises:
        ValueError: the checkpoint does not hold these weights, or belongs to another configuration.
    """
    checkpoint = load_checkpoint(path) if checkpoint is None else checkpoint
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights: '{weights}' is neither 'ema' nor 'raw'")
    state = checkpoint["state_dict"] if weights == "raw" else checkpoint.get("state_dict_ema")
    if state is None:
        raise ValueError(f"{path}: no 'state_dict_ema' in it (keys: {sorted(checkpoint)}); try --weights raw")
    model = make_meta_arch(config["model_name"], **config["model"])
    load_state(model, state, source=str(path))
    return model.eval()

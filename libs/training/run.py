"""Whole runs of supervised training. What a run leaves behind is in `run_folder.py`."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from libs.core import distributed
from libs.core.interrupts import StopRequest, stop_requests
from libs.core.lock import locked
from libs.core.seeding import fix_random_seed, seed_model
from libs.datasets import TALDataset, make_data_loader, make_dataset
from libs.datasets.annotations import MIN_DURATION
from libs.datasets.labels import label_ids
from libs.modeling import make_meta_arch

from .checkpoint import PREFIX, load_checkpoint, load_state, save_checkpoint
from .epoch import PartOfEpoch, StoppedInEpoch, train_one_epoch
from .optim import ModelEma, make_optimizer, make_scheduler, total_epochs
from .run_folder import (
    LAST,
    LOCK,
    RunLog,
    check_folder,
    clear_folder,
    format_time_left,
    resume_point,
    write_hyper_parameters,
    write_run_info,
)
from .run_identity import describe_data, read_as_run

logger = logging.getLogger(__name__)

EMA_TRAP = 0.05  # share of the initial weights in the average above which a run warns


def select_device(config: dict[str, Any]) -> torch.device:
    """The device of `devices`, or the CPU where that needs a GPU that is not there; of several processes, each has the
    GPU of its number.

    Raises:
        ValueError: several devices, or an unknown one.
    """
    devices = config["devices"]
    if len(devices) != 1:
        raise ValueError(
            f"devices: {devices}: one process runs on one device; name a single one, such as ['cuda:0'] or ['cpu'], "
            f"and type torchrun --nproc-per-node={len(devices)} tools/train.py ... for {len(devices)} GPUs"
        )
    try:
        device = torch.device(devices[0])
    except RuntimeError:
        raise ValueError(f"devices: '{devices[0]}' is not a device; use 'cpu', 'cuda:0', ...") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        logger.warning("devices: no CUDA GPU here, running on the CPU instead of %s", devices[0])
        return torch.device("cpu")
    if device.type == "cuda" and distributed.world_size() > 1:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def train(
    config: dict[str, Any],
    folder: str | Path,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    print_freq: int = 10,
    ckpt_freq: int = 5,
    progress: bool = True,
) -> Path:
    """Supervised training of a resolved configuration.

    Args:
        folder: of the run; must not hold a run already unless `resume` or `overwrite`.
        resume: checkpoint or run folder to go on from; the end is the same as without the interruption.
        ckpt_freq: epochs from one numbered checkpoint to the next. `last.pth.tar` is written after each.

    Returns:
        The run folder.
    """
    run = Path(folder)
    if distributed.is_main():
        check_folder(run, resume=resume, overwrite=overwrite)
    device = select_device(config)
    seed = config["init_rand_seed"]
    generator = fix_random_seed(seed)
    start_from = None if resume is None else resume_point(resume)
    resumed = None if start_from is None else start_from.parent
    annotations = None if resumed is None else read_as_run(config, resumed)
    given = {} if annotations is None else {"annotations": annotations}
    dataset = make_dataset(config["dataset_name"], True, config["train_split"], **config["dataset"], **given)
    check_events(dataset)
    config["train_cfg"]["head_empty_cls"] = dataset.get_attributes()["empty_label_ids"]
    loader = make_data_loader(dataset, True, generator, **config["loader"])
    check_parts(config)
    model = make_meta_arch(config["model_name"], **config["model"]).to(device)
    optimizer = make_optimizer(model, config["opt"])
    scheduler = make_scheduler(optimizer, config["opt"], len(loader))
    ema = ModelEma(model, config["train_cfg"]["ema_decay"], ramp=config["train_cfg"]["ema_ramp"])
    scaler = torch.amp.GradScaler(device.type, enabled=config["train_cfg"]["amp"] == "fp16")
    compile_network(model, config)

    start, part = 0, None
    if start_from is not None:
        start, part = restore(start_from, model, ema, optimizer, scheduler, iters_per_epoch=len(loader), scaler=scaler)
    parts = _Parts(loader, model, optimizer, scheduler, ema, scaler)
    folder = distributed.own_folder(run)
    with locked(folder, LOCK), stop_requests() as stop:
        if start_from is None and overwrite and distributed.is_main():
            clear_folder(folder)
        write_run_info(
            config, folder, label_ids=label_ids(dataset), data=describe_data(config, dataset), resumed=resumed
        )
        losses = _train_epochs(
            config, folder, parts, range(start, total_epochs(config["opt"])), part, stop,
            print_freq=min(print_freq, max(len(loader) - 1, 1)),  # at least once an epoch
            ckpt_freq=ckpt_freq, progress=progress,
        )  # fmt: skip
        if losses:
            final = {f"final/{name}": value for name, value in losses.items()}
            write_hyper_parameters(folder, config, "training", final, step=total_epochs(config["opt"]))
        warn_about_ema(ema)
        distributed.from_main(None)  # the main process has written everything
    return run


@dataclass(frozen=True)
class _Parts:
    """Of supervised training."""

    loader: Any
    model: Any
    optimizer: torch.optim.Optimizer
    scheduler: Any
    ema: ModelEma
    scaler: torch.amp.GradScaler

    def state(self, epoch: int, part: PartOfEpoch | None = None) -> dict[str, Any]:
        """A checkpoint after `epoch` whole epochs and, where training was stopped in one, `part` of the next."""
        state = training_state(epoch, self.model, self.ema, self.optimizer, self.scheduler)
        state["scaler"] = self.scaler.state_dict()
        if part is not None:
            state["part_of_epoch"] = part._asdict()
        return state


def _train_epochs(
    config: dict[str, Any],
    folder: Path,
    parts: _Parts,
    epochs: range,
    part: PartOfEpoch | None,
    stop: StopRequest,
    *,
    print_freq: int,
    ckpt_freq: int,
    progress: bool,
) -> dict[str, float]:
    """Trains these epochs, the first of them from `part` on, and writes records and checkpoints. Returns the losses of
    the last one."""
    seed, count = config["init_rand_seed"], len(parts.loader)
    losses: dict[str, float] = {}
    done = 0 if part is None else part.iterations
    with RunLog(folder, key="epoch", start=epochs.start, purge_step=epochs.start * count + done) as log:
        logger.info(
            "training %d videos, %d epochs of %d iterations, on %s; run folder %s",
            len(parts.loader.dataset), epochs.stop, count, parts.model.device, folder,
        )  # fmt: skip
        run_began = time.perf_counter()
        for epoch in epochs:
            seed_model(seed, epoch)  # drop path and dropout of this epoch
            began = time.perf_counter()
            try:
                losses = train_one_epoch(
                    parts.loader, parts.model, parts.optimizer, parts.scheduler, epoch, model_ema=parts.ema,
                    clip_grad_l2norm=config["train_cfg"]["clip_grad_l2norm"], tb_writer=log.writer,
                    print_freq=print_freq, scaler=parts.scaler, accumulate=config["train_cfg"]["accumulate"],
                    progress=progress, part=part, stop=stop,
                )  # fmt: skip
            except StoppedInEpoch as stopped:
                save_checkpoint(parts.state(epoch, stopped.part), False, str(folder), LAST)
                logger.warning(
                    "stopped after %d of %d iterations of epoch %d; go on with --resume %s",
                    stopped.part.iterations, count, epoch + 1, folder,
                )  # fmt: skip
                raise stop.exception() from None
            part = None
            seconds, rate = time.perf_counter() - began, parts.scheduler.get_last_lr()[0]
            log.record({"epoch": epoch + 1, "lr": rate, "seconds": round(seconds, 3), **losses})
            logger.info(
                "epoch %d/%d %s lr %.2e %.1f videos/s ETA %s",
                epoch + 1, epochs.stop, " ".join(f"{name} {value:.4f}" for name, value in losses.items()), rate,
                count * config["loader"]["batch_size"] / max(seconds, 1e-9),
                format_time_left(run_began, epoch + 1 - epochs.start, len(epochs)),
            )  # fmt: skip
            state = parts.state(epoch + 1)
            save_checkpoint(state, False, str(folder), LAST)
            if epoch + 1 == epochs.stop or (ckpt_freq > 0 and (epoch + 1) % ckpt_freq == 0):
                if config["train_cfg"]["numbered_checkpoints"] == "weights":
                    state = only_weights(state)
                save_checkpoint(state, False, str(folder), f"epoch_{epoch + 1:03d}.pth.tar")
            if epoch + 1 < epochs.stop and distributed.in_any(bool(stop)):
                logger.warning("stopped after epoch %d; go on with --resume %s", epoch + 1, folder)
                raise stop.exception()
    return losses


def check_events(dataset: Any, *, what: str = "training") -> None:
    """Raises ValueError where no event of a data set has a length: there is nothing to learn."""
    videos = getattr(dataset, "videos", None)
    if videos is None:
        return  # a data set of the user's own
    events = [event for video in videos for event in video.events]
    long = [event for event in events if event.end - event.start >= MIN_DURATION]
    if long and (not isinstance(dataset, TALDataset) or any(map(dataset.has_event_on_grid, range(len(videos))))):
        return
    found = "no event" if not events else f"{len(events)} events, none of which has a length"
    if long:
        found = f"{len(events)} events, all outside the features of their videos"
    raise ValueError(
        f"{dataset.json_file}: nothing to learn: the {len(videos)} {what} videos of {list(dataset.split)} have "
        f"{found}; `actionformer-nt check-data` tells more"
    )


def check_parts(config: dict[str, Any]) -> None:
    """Raises ValueError where several processes would not cut a batch into the same number of equal parts: they would
    wait for each other."""
    size, parts = config["loader"]["batch_size"], config["train_cfg"]["accumulate"]
    if parts > 1 and size % (parts * distributed.world_size()):
        raise ValueError(
            f"loader.batch_size: {size} must be a multiple of train_cfg.accumulate: {parts} times the number of "
            f"processes, {distributed.world_size()}"
        )


def compile_network(model: Any, config: dict[str, Any]) -> None:
    """With `train_cfg.compile`, the network by torch.compile, for any length of videos; to be called after the averaged
    copy is made, which stays as it is. The names of the parameters stay, too."""
    if config["train_cfg"]["compile"]:
        model.network = torch.compile(model.network, dynamic=True)


def training_state(epoch: int, model: Any, ema: ModelEma, optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """A checkpoint with ActionFormer's keys and, beyond them, what an exact resume needs. `epoch`: those completed."""
    return {
        "epoch": epoch,
        "state_dict": {PREFIX + name: value for name, value in model.state_dict().items()},
        "state_dict_ema": {PREFIX + name: value for name, value in ema.module.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "scheduler": {
            "last_epoch": scheduler.last_epoch,
            "base_lrs": list(scheduler.base_lrs),
            "warmup_epochs": scheduler.warmup_epochs,
            "max_epochs": scheduler.max_epochs,
        },
        "loss_normalizer": model.loss_normalizer,
        "ema_num_updates": ema.num_updates,
    }


def only_weights(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without what only resuming needs."""
    return {key: state[key] for key in ("epoch", "state_dict", "state_dict_ema", "loss_normalizer", "ema_num_updates")}


def restore(
    path: Path,
    model: Any,
    ema: ModelEma,
    optimizer: Any,
    scheduler: Any,
    *,
    iters_per_epoch: int,
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[int, PartOfEpoch | None]:
    """Loads a checkpoint of ours or of ActionFormer's into everything. Returns the number of completed epochs, and what
    was done of the next."""
    checkpoint = load_checkpoint(path)
    missing = [key for key in ("epoch", "state_dict_ema", "optimizer", "scheduler") if key not in checkpoint]
    if missing:
        raise ValueError(
            f"{path}: cannot resume from it: keys {missing} are missing. {LAST} has them; numbered checkpoints have "
            "them with train_cfg.numbered_checkpoints: full"
        )
    load_state(model, checkpoint["state_dict"], source=str(path))
    load_state(ema.module, checkpoint["state_dict_ema"], source=str(path))
    own, given = (
        {key for group in o["param_groups"] for key in group} for o in (optimizer.state_dict(), checkpoint["optimizer"])
    )
    if {"betas", "momentum"} & own != {"betas", "momentum"} & given:
        raise ValueError(f"{path}: its optimizer is of another kind than opt.type: '{type(optimizer).__name__}'")
    optimizer.load_state_dict(checkpoint["optimizer"])
    scheduler.load_state_dict(checkpoint["scheduler"])
    if scaler is not None and checkpoint.get("scaler"):
        scaler.load_state_dict(checkpoint["scaler"])
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


def warn_about_ema(ema: ModelEma) -> None:
    share = ema.initial_weight()
    if share > EMA_TRAP:
        logger.warning(
            "%.0f %% of the averaged (EMA) weights are still the random initialisation after %d updates at decay %g; "
            "evaluate with --weights raw, or train with train_cfg.ema_ramp: true",
            100 * share, ema.num_updates, ema.decay,
        )  # fmt: skip


def load_model(
    config: dict[str, Any], path: str | Path, *, weights: str = "ema", checkpoint: dict[str, Any] | None = None
) -> Any:
    """The model of a resolved configuration with the weights of a checkpoint file, in evaluation mode, on the CPU.

    Args:
        checkpoint: the content of the file, instead of reading it.

    Raises:
        ValueError: the checkpoint does not hold these weights, or belongs to another configuration.
    """
    checkpoint = load_checkpoint(path) if checkpoint is None else checkpoint
    key = {"ema": "state_dict_ema", "raw": "state_dict"}.get(weights)
    if key is None:
        raise ValueError(f"weights: '{weights}' is neither 'ema' nor 'raw'")
    if key not in checkpoint:
        raise ValueError(f"{path}: no '{key}' in it (keys: {sorted(checkpoint)}); try --weights raw")
    model = make_meta_arch(config["model_name"], **config["model"])
    load_state(model, checkpoint[key], source=str(path))
    return model.eval()

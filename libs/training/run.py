"""Whole runs of supervised training. `run_folder.py` describes the files that a run writes."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader

from libs.core import distributed
from libs.core.device import select_device
from libs.core.interrupts import StopRequest, stop_requests
from libs.core.lock import locked
from libs.core.seeding import fix_random_seed, seed_model
from libs.core.types import Config
from libs.datasets import TALDataset, make_data_loader, make_dataset
from libs.datasets.labels import label_ids

from .build import build_updater
from .checkpoint import Checkpoint, save_checkpoint
from .checks import check_events, check_parts
from .ema import ModelEma, warn_about_ema
from .epoch import PartOfEpoch, StoppedInEpoch, train_epoch
from .optim import make_scheduler, total_epochs
from .resume import only_weights, restore, training_state
from .run_folder import LAST, LOCK, check_folder, clear_folder, resume_point, write_run_info
from .run_identity import describe_data, read_as_run
from .run_log import RunLog, format_time_left, write_hyper_parameters
from .update import Updater

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A supervised run that is ready to train.

    Attributes:
        config: resolved; `train_cfg.head_empty_cls` lists the classes without a training event.
        ckpt_freq: epochs from one numbered checkpoint to the next.
        print_freq: iterations from one log line to the next.
    """

    config: Config
    loader: DataLoader
    updater: Updater
    ema: ModelEma
    ckpt_freq: int
    print_freq: int
    progress: bool

    @property
    def dataset(self) -> TALDataset:
        dataset: TALDataset = self.loader.dataset  # type: ignore[assignment]  # a plug-in's has the same interface
        return dataset

    @property
    def num_epochs(self) -> int:
        return total_epochs(self.config["opt"])

    def state(self, epoch: int, part: PartOfEpoch | None = None) -> Checkpoint:
        """A checkpoint after `epoch` completed epochs and, if training was stopped, `part` of the next one."""
        state = training_state(epoch, self.updater, self.ema)
        if part is not None:
            state["part_of_epoch"] = part._asdict()
        return state


def train(
    config: Config,
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
        folder: run folder; must not hold a run already unless `resume` or `overwrite` is given.
        resume: checkpoint or run folder to resume from; the result is the same as without the interruption.
        overwrite: delete the run that the folder holds.
        print_freq: iterations from one log line to the next.
        ckpt_freq: epochs from one numbered checkpoint to the next; `last.pth.tar` is written after every epoch.
        progress: show a progress bar (on a terminal only).

    Returns:
        The run folder.

    Raises:
        ValueError: the folder, the configuration or the data do not allow the run; names folder, key or video.
    """
    run_path = Path(folder)
    if distributed.is_main():
        check_folder(run_path, resume=resume, overwrite=overwrite)
    start_from = None if resume is None else resume_point(resume)
    resumed = None if start_from is None else start_from.parent
    run = set_up(config, resumed=resumed, print_freq=print_freq, ckpt_freq=ckpt_freq, progress=progress)
    start, part = 0, None
    if start_from is not None:
        start, part = restore(start_from, run.updater, run.ema, iters_per_epoch=len(run.loader))
    own_folder = distributed.own_folder(run_path)
    with locked(own_folder, LOCK), stop_requests() as stop:
        if start_from is None and overwrite and distributed.is_main():
            clear_folder(own_folder)
        write_run_info(
            run.config, own_folder, label_ids=label_ids(run.dataset), data=describe_data(run.config, run.dataset),
            resumed=resumed,
        )  # fmt: skip
        losses = train_epochs(run, own_folder, range(start, run.num_epochs), part, stop)
        if losses:
            final = {f"final/{name}": value for name, value in losses.items()}
            write_hyper_parameters(own_folder, run.config, "training", final, step=run.num_epochs)
        warn_about_ema(run.ema)
        distributed.from_main(None)  # the main process has written everything
    return run_path


def set_up(config: Config, *, resumed: Path | None, print_freq: int, ckpt_freq: int, progress: bool) -> Run:
    """Builds data set, network and optimizer of a resolved configuration, which is not changed.

    Args:
        resumed: folder of the run to resume; the annotations must have its classes. None: a new run.

    Raises:
        ValueError: there is nothing to learn, or values do not fit the data or the number of processes.
    """
    config = copy.deepcopy(config)
    device = select_device(config)
    generator = fix_random_seed(config["init_rand_seed"])
    annotations = None if resumed is None else read_as_run(config, resumed)
    preloaded = {} if annotations is None else {"annotations": annotations}
    dataset = make_dataset(config["dataset_name"], True, config["train_split"], **config["dataset"], **preloaded)
    check_events(dataset)
    train_cfg = config["train_cfg"]
    train_cfg["head_empty_cls"] = dataset.get_attributes()["empty_label_ids"]
    loader = make_data_loader(dataset, True, generator, **config["loader"])
    check_parts(train_cfg["accumulate"], {"loader.batch_size": config["loader"]["batch_size"]})
    updater, ema = build_updater(
        config, device, lambda optimizer: make_scheduler(optimizer, config["opt"], len(loader))
    )
    print_freq = min(print_freq, max(len(loader) - 1, 1))  # at least one log line per epoch
    return Run(
        config=config, loader=loader, updater=updater, ema=ema,
        ckpt_freq=ckpt_freq, print_freq=print_freq, progress=progress,
    )  # fmt: skip


def train_epochs(
    run: Run, folder: Path, epochs: range, part: PartOfEpoch | None, stop: StopRequest
) -> dict[str, float]:
    """Trains the epochs of a range, writing records and checkpoints.

    Args:
        epochs: numbers from 0.
        part: progress within the first of them before an interruption.
        stop: checked after every iteration.

    Returns:
        Mean of every loss over the last epoch.
    """
    config, scheduler, count = run.config, run.updater.scheduler, len(run.loader)
    losses: dict[str, float] = {}
    done = 0 if part is None else part.iterations
    with RunLog(folder, key="epoch", start=epochs.start, purge_step=epochs.start * count + done) as log:
        logger.info(
            "training %d videos, %d epochs of %d iterations, on %s; run folder %s",
            len(run.dataset), epochs.stop, count, run.updater.model.device, folder,
        )  # fmt: skip
        run_began = time.perf_counter()
        for epoch in epochs:
            seed_model(config["init_rand_seed"], epoch)  # drop path and dropout of this epoch
            began = time.perf_counter()
            try:
                losses = train_epoch(
                    run.loader, run.updater, epoch, accumulate=config["train_cfg"]["accumulate"],
                    tb_writer=log.writer, print_freq=run.print_freq, progress=run.progress, part=part, stop=stop,
                )  # fmt: skip
            except StoppedInEpoch as stopped:
                save_checkpoint(run.state(epoch, stopped.part), False, str(folder), LAST)
                logger.warning(
                    "stopped after %d of %d iterations of epoch %d; go on with --resume %s",
                    stopped.part.iterations, count, epoch + 1, folder,
                )  # fmt: skip
                raise stop.exception() from None
            part = None
            seconds, rate = time.perf_counter() - began, scheduler.get_last_lr()[0]
            log.record({"epoch": epoch + 1, "lr": rate, "seconds": round(seconds, 3), **losses})
            logger.info(
                "epoch %d/%d %s lr %.2e %.1f videos/s ETA %s",
                epoch + 1, epochs.stop, " ".join(f"{name} {value:.4f}" for name, value in losses.items()), rate,
                count * config["loader"]["batch_size"] / max(seconds, 1e-9),
                format_time_left(run_began, epoch + 1 - epochs.start, len(epochs)),
            )  # fmt: skip
            _save(run, folder, epoch + 1)
            if epoch + 1 < epochs.stop and distributed.in_any(bool(stop)):
                logger.warning("stopped after epoch %d; go on with --resume %s", epoch + 1, folder)
                raise stop.exception()
    return losses


def _save(run: Run, folder: Path, epoch: int) -> None:
    """Writes the checkpoints after `epoch` completed epochs."""
    state = run.state(epoch)
    save_checkpoint(state, False, str(folder), LAST)
    if epoch == run.num_epochs or (run.ckpt_freq > 0 and epoch % run.ckpt_freq == 0):
        if run.config["train_cfg"]["numbered_checkpoints"] == "weights":
            state = only_weights(state)
        save_checkpoint(state, False, str(folder), f"epoch_{epoch:03d}.pth.tar")

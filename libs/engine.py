"""Whole runs: supervised training, and evaluation of a checkpoint. What a run leaves behind is in `run_folder.py`."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from libs.datasets import make_data_loader, make_dataset
from libs.modeling import make_meta_arch
from libs.run_folder import (
    GROUND_TRUTH,
    LAST,
    RunLog,
    check_writable,
    clear_folder,
    format_time_left,
    prepare_folder,
    resume_point,
    source_commit,
    stem_of_results,
    write_hyper_parameters,
    write_run_info,
)
from libs.utils import distributed
from libs.utils.annotations import Annotations
from libs.utils.checkpoint import PREFIX, find_checkpoint, load_checkpoint, load_state, save_checkpoint
from libs.utils.evaluation import EvaluationResult
from libs.utils.metrics import ANETdetection
from libs.utils.optim import ModelEma, make_optimizer, make_scheduler, total_epochs
from libs.utils.report import format_result, result_to_dict, write_table
from libs.utils.results import Detections, write_ground_truth, write_results
from libs.utils.score_fusion import fuse_scores, read_video_scores
from libs.utils.seeding import fix_random_seed, seed_model
from libs.utils.train_utils import predict, train_one_epoch

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
    folder = Path(folder)
    if distributed.is_main():
        prepare_folder(folder, resume=resume, overwrite=overwrite)
    device = select_device(config)
    seed = config["init_rand_seed"]
    generator = fix_random_seed(seed)
    dataset = make_dataset(config["dataset_name"], True, config["train_split"], **config["dataset"])
    config["train_cfg"]["head_empty_cls"] = dataset.get_attributes()["empty_label_ids"]
    loader = make_data_loader(dataset, True, generator, **config["loader"])
    check_parts(config)
    model = make_meta_arch(config["model_name"], **config["model"]).to(device)
    optimizer = make_optimizer(model, config["opt"])
    scheduler = make_scheduler(optimizer, config["opt"], len(loader))
    ema = ModelEma(model, config["train_cfg"]["ema_decay"], ramp=config["train_cfg"]["ema_ramp"])
    scaler = torch.amp.GradScaler(device.type, enabled=config["train_cfg"]["amp"] == "fp16")
    epochs = total_epochs(config["opt"])
    compile_network(model, config)

    start = 0
    if resume is not None:
        start = restore(
            resume_point(resume), model, ema, optimizer, scheduler, iters_per_epoch=len(loader), scaler=scaler
        )
    elif overwrite and distributed.is_main():
        clear_folder(folder)
    run, folder = folder, distributed.own_folder(folder)
    write_run_info(config, folder, names=label_names(dataset))
    print_freq = min(print_freq, max(len(loader) - 1, 1))  # at least once an epoch
    with RunLog(folder, key="epoch", start=start, purge_step=start * len(loader)) as log:
        logger.info(
            "training %d videos, %d epochs of %d iterations, on %s; run folder %s",
            len(dataset), epochs, len(loader), device, folder,
        )  # fmt: skip
        run_began = time.perf_counter()
        for epoch in range(start, epochs):
            seed_model(seed, epoch)  # drop path and dropout of this epoch
            began = time.perf_counter()
            losses = train_one_epoch(
                loader, model, optimizer, scheduler, epoch, model_ema=ema, print_freq=print_freq, progress=progress,
                clip_grad_l2norm=config["train_cfg"]["clip_grad_l2norm"], tb_writer=log.writer, scaler=scaler,
                accumulate=config["train_cfg"]["accumulate"],
            )  # fmt: skip
            seconds, rate = time.perf_counter() - began, scheduler.get_last_lr()[0]
            log.record({"epoch": epoch + 1, "lr": rate, "seconds": round(seconds, 3), **losses})
            logger.info(
                "epoch %d/%d %s lr %.2e %.1f videos/s ETA %s",
                epoch + 1, epochs, " ".join(f"{name} {value:.4f}" for name, value in losses.items()), rate,
                len(loader) * config["loader"]["batch_size"] / max(seconds, 1e-9),
                format_time_left(run_began, epoch + 1 - start, epochs - start),
            )  # fmt: skip
            state = training_state(epoch + 1, model, ema, optimizer, scheduler) | {"scaler": scaler.state_dict()}
            save_checkpoint(state, False, str(folder), LAST)
            if epoch + 1 == epochs or (ckpt_freq > 0 and (epoch + 1) % ckpt_freq == 0):
                save_checkpoint(state, False, str(folder), f"epoch_{epoch + 1:03d}.pth.tar")
    if start < epochs:
        write_hyper_parameters(folder, config, "training", {f"final/{name}": value for name, value in losses.items()})
    warn_about_ema(ema)
    distributed.from_main(None)  # the main process has written everything
    return run


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


def restore(
    path: Path,
    model: Any,
    ema: ModelEma,
    optimizer: Any,
    scheduler: Any,
    *,
    iters_per_epoch: int,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Loads a checkpoint of ours or of ActionFormer's into everything. Returns the number of completed epochs."""
    checkpoint = load_checkpoint(path)
    missing = [key for key in ("epoch", "state_dict_ema", "optimizer", "scheduler") if key not in checkpoint]
    if missing:
        raise ValueError(f"{path}: cannot resume from it: keys {missing} are missing")
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
    return epoch


def warn_about_ema(ema: ModelEma) -> None:
    share = ema.initial_weight()
    if share > EMA_TRAP:
        logger.warning(
            "%.0f %% of the averaged (EMA) weights are still the random initialisation after %d updates at decay %g; "
            "evaluate with --weights raw, or train with train_cfg.ema_ramp: true",
            100 * share, ema.num_updates, ema.decay,
        )  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found and where it wrote it."""

    detections: Detections
    result: EvaluationResult | None  # None: only saved
    files: dict[str, Path]


def evaluate(
    config: dict[str, Any],
    checkpoint: str | Path,
    *,
    epoch: int = -1,
    topk: int = -1,
    weights: str = "ema",
    save_only: bool = False,
    absent_labels: str = "reference",
    annotations: Annotations | None = None,
    progress: bool = True,
) -> Evaluation:
    """Evaluates a checkpoint on `val_split` and writes, beside it, the detections as ActivityNet's result JSON, the
    metrics as JSON, the per-class table as CSV and the ground truth as an annotation file.

    Args:
        checkpoint: file or folder (see `find_checkpoint`).
        topk: detections kept per video; <= 0: test_cfg.max_seg_num.
        weights: "ema" (as ActionFormer) or "raw".
        save_only: write the detections and stop, without score fusion.
        annotations: instead of reading the annotation file.
    """
    if topk > 0:
        config["test_cfg"]["max_seg_num"] = topk
    path = find_checkpoint(checkpoint, epoch)
    device = select_device(config)
    fix_random_seed(0)
    given = {} if annotations is None else {"annotations": annotations}
    dataset = make_dataset(config["dataset_name"], False, config["val_split"], **config["dataset"], **given)
    loader = make_data_loader(dataset, False, None, **config["loader"])
    model = load_model(config, path, weights=weights).to(device)
    ext_score_file = None if save_only else config["test_cfg"]["ext_score_file"]
    video_scores = None if ext_score_file is None else read_video_scores(ext_score_file)
    folder = distributed.own_folder(path.parent)
    check_writable(folder)
    detections = predict(loader, model, progress=progress)

    provenance = {
        "checkpoint": str(path),
        "weights": weights,
        "commit": source_commit(),
        "command": shlex.join(sys.argv),
    }
    if video_scores is not None:
        detections = fuse_scores(
            detections,
            video_scores,
            num_pred=config["test_cfg"]["ext_score_num_pred"],
            topk=config["test_cfg"]["ext_score_topk"],
        )
        provenance["external_scores"] = ext_score_file
    names = label_names(dataset, external_scores=video_scores is not None)
    stem = stem_of_results(folder / path.name, weights)
    files = {"detections": Path(f"{stem}_detections.json")}
    write_results(files["detections"], detections, names, provenance=provenance)
    if save_only:
        return Evaluation(detections, None, files)

    attributes = dataset.get_attributes()
    evaluator = ANETdetection(
        dataset.json_file,
        dataset.split[0],
        tiou_thresholds=attributes["tiou_thresholds"],
        absent_labels=absent_labels,
        annotations=annotations,
    )
    result = evaluator.evaluate_all(detections)
    files |= {"metrics": Path(f"{stem}_metrics.json"), "per_class": Path(f"{stem}_per_class.csv")}
    provenance["absent_labels"] = absent_labels
    write_ground_truth(folder / GROUND_TRUTH, evaluator.videos, {i: n for n, i in evaluator.label_ids.items()})
    files["metrics"].write_text(
        json.dumps(result_to_dict(result, names) | {"provenance": provenance}, indent=1), encoding="utf-8"
    )
    write_table(files["per_class"], result, names)
    found = {f"mAP/{t:.2f}": m for t, m in zip(result.tiou, result.mAP.tolist(), strict=True)}
    average = {"mAP/average": result.average_mAP}
    write_hyper_parameters(folder, config, stem.name, average | found)
    fused = ", external scores" if ext_score_file else ""
    title = f"{Path(dataset.json_file).stem} {dataset.split[0]} ({weights} weights{fused})"
    print(format_result(result, title=title))
    return Evaluation(detections, result, files)


def label_names(dataset: Any, *, external_scores: bool = False) -> dict[int, str]:
    """Class id -> name; empty where one class stands for all, unless external scores tell them apart."""
    if getattr(dataset, "class_agnostic", False) and not external_scores:
        return {}
    return {i: name for name, i in getattr(dataset, "label_dict", {}).items()}


def load_model(config: dict[str, Any], path: str | Path, *, weights: str = "ema") -> Any:
    """The model of a resolved configuration with the weights of a checkpoint file, in evaluation mode, on the CPU.

    Raises:
        ValueError: the checkpoint does not hold these weights, or belongs to another configuration.
    """
    checkpoint = load_checkpoint(path)
    key = {"ema": "state_dict_ema", "raw": "state_dict"}.get(weights)
    if key is None:
        raise ValueError(f"weights: '{weights}' is neither 'ema' nor 'raw'")
    if key not in checkpoint:
        raise ValueError(f"{path}: no '{key}' in it (keys: {sorted(checkpoint)}); try --weights raw")
    model = make_meta_arch(config["model_name"], **config["model"])
    load_state(model, checkpoint[key], source=str(path))
    return model.eval()

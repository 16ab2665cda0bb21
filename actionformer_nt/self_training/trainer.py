"""Semi-supervised training: burn-in on the labeled videos, then self-training with an averaged teacher.

A run is counted in iterations. Each is the supervised step on a labeled batch; after the burn-in, an unlabeled batch
joins it: the teacher looks at a weak view and makes pseudo labels, the method turns the class distribution of each
into class targets, and these are carried through the geometry of a strong view to the student (`unlabeled.py`).
SPOT's pretraining on all videos, without any label, may come before all this.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from actionformer_nt.methods import ClassTargets, Options, get_method
from actionformer_nt.names import ORACLE
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from actionformer_nt.protocol.splits import Split, check_split, read_hidden, read_split, unlabeled_classes
from actionformer_nt.snapshots.write import write_embeddings, write_if_due
from libs.core import distributed
from libs.core.interrupts import StopRequest, stop_requests
from libs.core.lock import locked
from libs.core.seeding import derive_seed, fix_random_seed, seed_model
from libs.datasets import make_dataset
from libs.evaluation import run as evaluation
from libs.modeling import make_meta_arch
from libs.training import run as engine
from libs.training import run_folder
from libs.training.checkpoint import load_checkpoint, save_checkpoint
from libs.training.epoch import check_finite, until_stopped
from libs.training.optim import IterationLR, ModelEma, make_optimizer
from libs.training.run_identity import check_classes, describe_data, read_label_ids

from .batches import IterationBatches, iteration_loader
from .criterion import ramp
from .curves import Records, count_pseudo_labels, numbers
from .pyramid import Unlabeled, check_pseudo, make_unlabeled
from .views import make_view

logger = logging.getLogger(__name__)

BURN_IN = "burn_in.pth.tar"


class SemiTrainer:
    """One run.

    Args:
        config: resolved, with `semi_cfg`.
        diagnostic: allows the method that uses hidden labels.

    Raises:
        ValueError: a configuration that does not fit semi-supervised training, or a split that does not fit the data.
    """

    def __init__(self, config: dict[str, Any], *, diagnostic: bool = False) -> None:
        self.config, self.semi = config, config["semi_cfg"]
        check_config(config, diagnostic=diagnostic)
        self.method = get_method(self.semi["method"])
        self.device = engine.select_device(config)
        self.seed = config["init_rand_seed"]
        fix_random_seed(self.seed)

        split = self.semi["split"]
        self.split = read_split(split["file"], split["ratio"], split["fold"])
        self.annotations = read_hidden(config["dataset"]["json_file"], self.split)
        check_split(config, self.annotations, self.split)
        if names := unlabeled_classes(self.annotations, self.split):
            logger.warning(
                "split %s: no labeled video of %d classes: %s", self.split.source, len(names), ", ".join(names)
            )
        self.labeled = self._dataset(self.split.labeled)
        engine.check_events(self.labeled, what="labeled")
        self.unlabeled = None
        if self.method is not None:
            self.unlabeled = self._dataset(self.split.unlabeled)
        self.all = self._dataset(self.split.labeled + self.split.unlabeled) if self.semi["pretrain"] else None
        needs_truth = self.semi["log_hidden"] or self.semi["method"] == ORACLE
        self.hidden = HiddenLabels(config, self.split) if needs_truth and self.split.unlabeled else None

        config["train_cfg"]["head_empty_cls"] = self.labeled.get_attributes()["empty_label_ids"]
        self.model = make_meta_arch(config["model_name"], **config["model"]).to(self.device)
        self.optimizer = make_optimizer(self.model, config["opt"])
        self.pretrained = self.semi["pretrain"]  # the iterations at which each stage ends
        self.burn_in = self.pretrained + self.semi["burn_in"]
        self.total = self.burn_in + self.semi["iterations"]
        warmup = self.semi["warmup_iterations"]
        self.scheduler = IterationLR(
            self.optimizer,
            warmup_epochs=warmup,
            max_epochs=self.total,
            milestones=config["opt"]["schedule_steps"] if config["opt"]["schedule_type"] == "multistep" else None,
            gamma=config["opt"]["schedule_gamma"],
            eta_min=1e-8 if warmup else 0.0,
        )
        self.ema = ModelEma(self.model, config["train_cfg"]["ema_decay"], ramp=config["train_cfg"]["ema_ramp"])
        engine.compile_network(self.model, config)
        self.side: Unlabeled | None = None  # from the end of the burn-in on
        self.frozen: ModelEma | None = None  # teacher of `pseudo.source: refresh`
        self.iteration = 0
        self.records: Records | None = None  # while it trains
        self.sums: list[dict[str, float]] = []  # of iterations since the last record, by process
        self.without_pseudo = 0  # iterations in a row

    def _dataset(self, videos: tuple[str, ...]) -> Any:
        config = self.config
        return make_dataset(
            config["dataset_name"], True, config["train_split"], **config["dataset"],
            annotations=self.annotations, video_ids=frozenset(videos), seed=self.seed,
        )  # fmt: skip

    # ------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        """A checkpoint: ActionFormer's keys (the teacher is `state_dict_ema`) and what an exact resume needs."""
        state = engine.training_state(self.iteration, self.model, self.ema, self.optimizer, self.scheduler)
        state |= {
            "iteration": self.iteration,
            "unlabeled": None if self.side is None else self.side.state(),
            "frozen_teacher": None if self.frozen is None else self.frozen.module.state_dict(),
            "rng_state": torch.get_rng_state(),
            "rng_states": distributed.gather(torch.get_rng_state()),  # of all processes
            "record_sums": distributed.gather({} if self.records is None else dict(self.records.sums)),
            "split_hash": self.split.hash,
        }
        return state

    def restore(self, path: Path) -> None:
        """Goes back to a checkpoint of `state`; on a CPU the run then ends bit for bit as if never interrupted.

        Raises:
            ValueError: a checkpoint of supervised training, or of another split.
        """
        state = load_checkpoint(path)
        if "iteration" not in state:
            raise ValueError(f"{path}: not a checkpoint of semi-supervised training")
        if state["split_hash"] != self.split.hash:
            raise ValueError(f"{path}: made with another split file than {self.split.source}")
        engine.restore(path, self.model, self.ema, self.optimizer, self.scheduler, iters_per_epoch=1)
        self.iteration = state["iteration"]
        self.sums = state.get("record_sums", [])
        if state["unlabeled"] is not None:
            self.side = make_unlabeled(self.config, self.model.loss_normalizer, self.labeled)
            self.side.load_state(state["unlabeled"])
        if state["frozen_teacher"] is not None:
            self.frozen = ModelEma(self.ema.module)
            self.frozen.module.load_state_dict(state["frozen_teacher"])
        if len(state.get("rng_states", [0])) == distributed.world_size() > 1:
            torch.set_rng_state(state["rng_states"][distributed.rank()])
        else:
            torch.set_rng_state(state["rng_state"])

    # --------------------------------------------------------------- training

    def run(self, folder: Path, *, stop: StopRequest, progress: bool = True) -> None:
        """Trains from the present iteration to the end, or until `stop` says so: then it writes a checkpoint, and the
        signal's exception is raised."""
        workers, batch = self.config["loader"]["num_workers"], self.config["loader"]["batch_size"]
        start = self.iteration
        batches = IterationBatches(
            len(self.labeled), batch, self.seed,
            start=max(start - self.pretrained, 0), end=self.total - self.pretrained,
        )  # fmt: skip
        labeled = until_stopped(iteration_loader(self.labeled, batches, workers), stop)
        pretext = until_stopped(self._pretext_loader(start, workers), stop) if start < self.pretrained else None
        unlabeled = None
        with run_folder.RunLog(folder, key="iteration", start=start, purge_step=start) as log:
            logger.info(
                "method %s: %d labeled and %d unlabeled videos; %d iterations of burn-in, %d of self-training, on %s; "
                "run folder %s", self.semi["method"], len(self.labeled), len(self.split.unlabeled), self.burn_in,
                self.semi["iterations"], self.device, folder,
            )  # fmt: skip
            write_if_due(self, folder)
            records = self.records = Records(log, start=start, total=self.total)
            if len(self.sums) == distributed.world_size():
                records.sums.update(self.sums[distributed.rank()])
            for iteration in tqdm(
                range(start, self.total), initial=start, total=self.total, desc=self.semi["method"], unit="it",
                leave=False, disable=None if progress and distributed.is_main() else True,
            ):  # fmt: skip
                if distributed.in_any(bool(stop)):
                    self._stop(stop, folder)
                if pretext is not None and iteration < self.pretrained:
                    (videos,) = self._next([pretext], stop, folder)
                    self._keep(records, self.pretext_step(videos), folder)
                    continue
                epoch, place = divmod(iteration - self.pretrained, batches.per_epoch)
                if place == 0:
                    seed_model(self.seed, epoch)
                if self.unlabeled is not None and iteration >= self.burn_in and unlabeled is None:
                    unlabeled = until_stopped(self._unlabeled_loader(iteration, workers), stop)
                videos, *more = self._next([labeled] if unlabeled is None else [labeled, unlabeled], stop, folder)
                self._keep(records, self.step(videos, more[0] if more else None), folder)

    def _next(self, loaders: list[Iterator[Any]], stop: StopRequest, folder: Path) -> list[list[dict[str, Any]]]:
        try:
            return [next(loader) for loader in loaders]
        except StopIteration:  # the signal has ended the loaders' workers, too
            self._stop(stop, folder)

    def _stop(self, stop: StopRequest, folder: Path) -> NoReturn:
        save_checkpoint(self.state(), False, str(folder), run_folder.LAST)
        logger.warning("stopped after iteration %d; go on with --resume %s", self.iteration, folder)
        raise stop.exception()

    def _pretext_loader(self, iteration: int, workers: int) -> Any:
        batches = IterationBatches(
            len(self.all), self.config["loader"]["batch_size"] + self.semi["unlabeled_batch_size"], self.seed,
            start=iteration, end=self.pretrained, name="pretext",
        )  # fmt: skip
        return iteration_loader(self.all, batches, workers)

    def _unlabeled_loader(self, iteration: int, workers: int) -> Any:
        batches = IterationBatches(
            len(self.unlabeled), self.semi["unlabeled_batch_size"], self.seed,
            start=iteration - self.burn_in, end=self.semi["iterations"], name="unlabeled",
        )  # fmt: skip
        return iteration_loader(self.unlabeled, batches, workers)

    def pretext_step(self, videos: list[dict[str, Any]]) -> dict[str, float]:
        """One iteration of pretraining, on labeled and unlabeled videos alike."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        seed = derive_seed(self.seed, self.iteration, "pretext")
        seed_model(seed)
        losses = self.model.pretext(videos, torch.Generator().manual_seed(seed))
        return self._update(losses["final_loss"], numbers("pretext", losses), videos)

    def step(self, labeled: list[dict[str, Any]], unlabeled: list[dict[str, Any]] | None) -> dict[str, float]:
        """One iteration. Returns what is recorded of it (see `records.curves`)."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        if self.semi["labeled_view"] == "strong":
            labeled = [self._labeled_view(video) for video in labeled]
        losses = self.model(labeled)
        total = losses["final_loss"]
        values = numbers("labeled", losses)
        if unlabeled is not None:
            extra, more = self.unlabeled_loss(unlabeled)
            weight = self.semi["alpha"] * ramp(self.iteration - self.burn_in, self.semi["ramp_up"])
            total = total + weight * extra
            values |= more
        return self._update(total, values, labeled + (unlabeled or []))

    def _update(self, loss: Tensor, values: dict[str, float], videos: list[dict[str, Any]]) -> dict[str, float]:
        loss.backward()
        distributed.sum_gradients(self.model.parameters())
        clip = self.config["train_cfg"]["clip_grad_l2norm"]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip if clip > 0 else float("inf"))
        check_finite(values | {"gradient norm": float(norm)}, videos, 0, self.iteration)
        self.optimizer.step()
        self.scheduler.step()
        self.ema.update(self.model)
        self.iteration += 1
        return values | {"count": 1.0 / distributed.world_size(), "videos": float(len(videos))}

    def unlabeled_loss(self, videos: list[dict[str, Any]]) -> tuple[Tensor, dict[str, float]]:
        """Loss of the student on strong views, with targets from the teacher on weak ones."""
        if self.side is None:
            self.side = make_unlabeled(self.config, self.model.loss_normalizer, self.labeled)
        weak = [self._view(video, "weak")[0] for video in videos]
        pseudo = self.side.pseudo_labels(self._teacher(), weak)
        targets = [
            self._class_targets(video, found, i) for i, (video, found) in enumerate(zip(weak, pseudo, strict=True))
        ]
        strong, geometries = zip(*(self._view(video, "strong") for video in weak), strict=True)
        losses, projected = self.side.losses(self.model, weak, list(strong), list(geometries), pseudo, targets)
        return losses["loss"], numbers("unlabeled", losses) | self._describe(weak, pseudo, projected)

    def _teacher(self) -> Any:
        pseudo = self.semi["pseudo"]
        if pseudo["source"] == "online":
            return self.ema.module
        if self.frozen is None or (self.iteration - self.burn_in) % pseudo["refresh_every"] == 0:
            if self.frozen is None:
                self.frozen = ModelEma(self.ema.module)
            self.frozen.set(self.ema.module)
        return self.frozen.module

    def _view(self, video: dict[str, Any], kind: str) -> tuple[dict[str, Any], Any]:
        seed = derive_seed(self.seed, self.iteration, video["video_id"], kind)
        feats, geometry = make_view(video["feats"], self.semi[kind], torch.Generator().manual_seed(seed))
        return {**video, "feats": feats}, geometry

    def _labeled_view(self, video: dict[str, Any]) -> dict[str, Any]:
        view, geometry = self._view(video, "strong")
        segments, kept = geometry.project(video["segments"], view["feats"].shape[1])
        return {**view, "segments": segments, "labels": video["labels"][kept]}

    def _class_targets(self, video: dict[str, Any], found: Any, row: int) -> ClassTargets:
        place = row * distributed.world_size() + distributed.rank()  # in the batch of all processes
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.iteration, place, "method"))
        truth = None
        if self.semi["method"] == ORACLE:
            truth = self.side.true_class(self.hidden, video, found)
        options = Options(
            form=self.side.form, lam=self.semi["lam"], positive=self.semi["positive"],
            positive_reduction=self.semi["positive_reduction"], generator=generator, true_class=truth,
        )  # fmt: skip
        return self.method(self.side.probs(found), options)

    # ---------------------------------------------------------------- records

    def _describe(self, videos: list[dict[str, Any]], pseudo: list[Any], projected: int) -> dict[str, float]:
        segments = [self.side.segments(found) for found in pseudo]
        lam = self.semi["lam"]
        self.without_pseudo = 0 if any(len(found.scores) for found in segments) else self.without_pseudo + 1
        if self.without_pseudo and self.without_pseudo % 200 == 0:
            logger.warning(
                "iteration %d: the teacher has found no segment for %d iterations; lower the threshold of its scores",
                self.iteration, self.without_pseudo,
            )  # fmt: skip
        values = count_pseudo_labels(segments, [self.side.used_probs(found) for found in pseudo], projected, lam)
        if self.hidden is not None and self.semi["log_hidden"]:
            counts = self.hidden.measure(videos, segments, lam)
            values |= {f"hidden_count/{name}": value for name, value in counts.items()}
        return values

    def _keep(self, records: Records, values: dict[str, float], folder: Path) -> None:
        records.add(values)
        if self.iteration % self.semi["log_every"] == 0 or self.iteration == self.total:
            state = {} if self.side is None else self.side.state()
            state = {f"unlabeled/{name}": value for name, value in state.items() if isinstance(value, float)}
            records.write(self.iteration, {"lr": self.scheduler.get_last_lr()[0]} | state)
        write_if_due(self, folder)
        self._save(folder)

    def _save(self, folder: Path) -> None:
        last = self.iteration == self.total
        if last or self.iteration % self.semi["ckpt_every"] == 0:
            save_checkpoint(self.state(), False, str(folder), run_folder.LAST)
        if self.iteration == self.burn_in and self.semi["iterations"]:
            save_checkpoint(self.state(), False, str(folder), BURN_IN)


def check_config(config: dict[str, Any], *, diagnostic: bool = False) -> None:
    """Raises ValueError where a configuration does not fit semi-supervised training.

    Args:
        diagnostic: allows the method that uses hidden labels.
    """
    semi = config["semi_cfg"]
    if config["test_cfg"]["ext_score_file"] and not semi["allow_external_scores"]:
        raise ValueError(
            "test_cfg.ext_score_file: external scores come from a model that may have seen hidden labels; set "
            "semi_cfg.allow_external_scores: true to use them all the same, and say so with every result"
        )
    if not config["train_cfg"]["ema_ramp"]:
        raise ValueError("train_cfg.ema_ramp must be true: without it the teacher is mostly the random initialisation")
    if config["train_cfg"]["accumulate"] > 1:
        raise ValueError(
            f"train_cfg.accumulate: {config['train_cfg']['accumulate']}: semi-supervised training takes whole "
            "batches; expected 1, with smaller loader.batch_size and semi_cfg.unlabeled_batch_size"
        )
    if config["train_cfg"]["amp"] == "fp16":
        raise ValueError(
            "train_cfg.amp: fp16 needs its losses scaled, which semi-supervised training does not do; use bf16"
        )
    if semi["method"] == ORACLE and not diagnostic:
        raise ValueError(f"method {ORACLE} uses hidden labels and runs only as a diagnostic (study --diagnostic)")
    check_pseudo(config)
    if semi["pretrain"] and config["model_name"] != "SPOT":
        raise ValueError(
            f"semi_cfg.pretrain: {semi['pretrain']}: only model_name: SPOT has pretext tasks, not "
            f"{config['model_name']}; set it to 0"
        )


def train(
    config: dict[str, Any],
    folder: str | Path,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
    diagnostic: bool = False,
    progress: bool = True,
) -> Path:
    """Semi-supervised training of a resolved configuration with `semi_cfg`.

    Args:
        resume: checkpoint or run folder to go on from; the end is the same as without the interruption.

    Returns:
        The run folder, with `config.yaml`, `run.json`, `metrics.jsonl`, TensorBoard's `logs/`, `burn_in.pth.tar` and
        `last.pth.tar` (student: `state_dict`, teacher: `state_dict_ema`).
    """
    run = Path(folder)
    if distributed.is_main():
        run_folder.check_folder(run, resume=resume, overwrite=overwrite)
    trainer = SemiTrainer(config, diagnostic=diagnostic)
    if resume is not None:
        start_from = run_folder.resume_point(resume)
        _check_classes(trainer.split, start_from.parent)
        trainer.restore(start_from)
    elif config["semi_cfg"]["burn_in_checkpoint"]:
        path = Path(config["semi_cfg"]["burn_in_checkpoint"])
        trainer.restore(path)
        if trainer.iteration != trainer.burn_in:
            raise ValueError(f"{path}: after {trainer.iteration} iterations, but semi_cfg.burn_in is {trainer.burn_in}")
    folder = distributed.own_folder(run)
    with locked(folder, run_folder.LOCK), stop_requests() as stop:
        if resume is None and overwrite and distributed.is_main():
            run_folder.clear_folder(folder)
        run_folder.write_run_info(
            config, folder, label_ids=engine.label_ids(trainer.labeled), data=describe_data(config, trainer.labeled),
            resumed=None if resume is None else start_from.parent,
        )  # fmt: skip
        trainer.run(folder, stop=stop, progress=progress)
        distributed.from_main(None)  # the main process has written everything
    return run


def _check_classes(split: Split, folder: Path) -> None:
    """The classes of a split file must be those of the run in a folder."""
    if known := read_label_ids(folder):
        check_classes(split.label_ids, known, what=f"split {split.source}", source=f"the run {folder}")


def evaluate(config: dict[str, Any], folder: str | Path, *, progress: bool = True) -> dict[str, evaluation.Evaluation]:
    """Evaluates the student ("raw" weights) and the teacher ("ema") of a finished run on `val_split`, without reading
    the hidden labels."""
    labels = config["semi_cfg"]["split"]
    split = read_split(labels["file"], labels["ratio"], labels["fold"])
    _check_classes(split, Path(folder))
    annotations = read_hidden(config["dataset"]["json_file"], split)
    checkpoint = Path(folder) / run_folder.LAST
    found = {
        name: evaluation.evaluate(config, checkpoint, weights=weights, annotations=annotations, progress=progress)
        for name, weights in (("student", "raw"), ("teacher", "ema"))
    }
    if distributed.is_main():
        write_embeddings(config, checkpoint, annotations)
    return found

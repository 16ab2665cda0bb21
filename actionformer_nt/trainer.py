"""Semi-supervised training: burn-in on the labeled videos, then self-training with an averaged teacher.

A run is counted in iterations. Each is the supervised step on a labeled batch; after the burn-in, an unlabeled batch
joins it: the teacher looks at a weak view and proposes segments, the method turns the class distribution of each into
class targets, and these are carried through the geometry of a strong view to the points of the student.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from libs import engine, run_folder
from libs.datasets import make_dataset
from libs.modeling import make_meta_arch
from libs.utils.checkpoint import load_checkpoint, save_checkpoint
from libs.utils.optim import IterationLR, ModelEma, make_optimizer
from libs.utils.seeding import derive_seed, fix_random_seed
from libs.utils.train_utils import check_finite

from .batches import IterationBatches, iteration_loader
from .criterion import UnlabeledCriterion, ramp
from .hidden import HiddenLabels, rates
from .label_space import partition
from .methods import ClassTargets, Options, get_method
from .names import LABELED_ONLY, ORACLE
from .pseudo_labels import PseudoSegments, propose, select, spread
from .splits import read_hidden, read_split, unlabeled_classes
from .views import make_view

logger = logging.getLogger(__name__)

BURN_IN = "burn_in.pth.tar"
CLASS_SCORE_MOMENTUM = 0.99


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
        self._check(diagnostic)
        self.method = get_method(self.semi["method"])
        self.device = engine.select_device(config)
        self.seed = config["init_rand_seed"]
        fix_random_seed(self.seed)

        split = self.semi["split"]
        self.split = read_split(split["file"], split["ratio"], split["fold"])
        self.annotations = read_hidden(config["dataset"]["json_file"], self.split)
        if names := unlabeled_classes(self.annotations, self.split):
            logger.warning(
                "split %s: no labeled video of %d classes: %s", self.split.source, len(names), ", ".join(names)
            )
        self.labeled = self._dataset(self.split.labeled)
        self.unlabeled = None
        if self.method is not None:
            if not self.split.unlabeled:
                raise ValueError(
                    f"split {self.split.source} has no unlabeled video: nothing for method '{self.semi['method']}' to "
                    f"learn from; use method: {LABELED_ONLY}"
                )
            self.unlabeled = self._dataset(self.split.unlabeled)
        needs_truth = self.semi["log_hidden"] or self.semi["method"] == ORACLE
        self.hidden = HiddenLabels(config, self.split.unlabeled) if needs_truth and self.split.unlabeled else None

        config["train_cfg"]["head_empty_cls"] = self.labeled.get_attributes()["empty_label_ids"]
        self.model = make_meta_arch(config["model_name"], **config["model"]).to(self.device)
        self.optimizer = make_optimizer(self.model, config["opt"])
        self.burn_in, self.total = self.semi["burn_in"], self.semi["burn_in"] + self.semi["iterations"]
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
        self.criterion: UnlabeledCriterion | None = None  # from the end of the burn-in on
        self.class_scores = torch.zeros(config["dataset"]["num_classes"])
        self.frozen: ModelEma | None = None  # teacher of `pseudo.source: refresh`
        self.iteration = 0
        self.without_pseudo = 0  # iterations in a row

    def _check(self, diagnostic: bool) -> None:
        if self.config["test_cfg"]["ext_score_file"] and not self.semi["allow_external_scores"]:
            raise ValueError(
                "test_cfg.ext_score_file: external scores come from a model that may have seen hidden labels; set "
                "semi_cfg.allow_external_scores: true to use them all the same, and say so with every result"
            )
        if not self.config["train_cfg"]["ema_ramp"]:
            raise ValueError(
                "train_cfg.ema_ramp must be true: without it the teacher is mostly the random initialisation"
            )
        if self.semi["method"] == ORACLE and not diagnostic:
            raise ValueError(f"method {ORACLE} uses hidden labels and runs only as a diagnostic (study --diagnostic)")

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
            "unlabeled_normalizer": None if self.criterion is None else self.criterion.normalizer,
            "class_scores": self.class_scores,
            "frozen_teacher": None if self.frozen is None else self.frozen.module.state_dict(),
            "rng_state": torch.get_rng_state(),
            "split_hash": self.split.hash,
        }
        return state

    def restore(self, path: Path) -> None:
        state = load_checkpoint(path)
        if "iteration" not in state:
            raise ValueError(f"{path}: not a checkpoint of semi-supervised training")
        if state["split_hash"] != self.split.hash:
            raise ValueError(f"{path}: made with another split file than {self.split.source}")
        engine.restore(path, self.model, self.ema, self.optimizer, self.scheduler, iters_per_epoch=1)
        self.iteration = state["iteration"]
        if state["unlabeled_normalizer"] is not None:
            self.criterion = self._criterion(state["unlabeled_normalizer"])
        self.class_scores = state["class_scores"]
        if state["frozen_teacher"] is not None:
            self.frozen = ModelEma(self.model)
            self.frozen.module.load_state_dict(state["frozen_teacher"])
        torch.set_rng_state(state["rng_state"])

    def _criterion(self, normalizer: float) -> UnlabeledCriterion:
        return UnlabeledCriterion(form=self.semi["form"], reg_weight=self.semi["reg_weight"], normalizer=normalizer)

    # --------------------------------------------------------------- training

    def run(self, folder: Path, *, progress: bool = True) -> None:
        """Trains from the present iteration to the end."""
        workers, batch = self.config["loader"]["num_workers"], self.config["loader"]["batch_size"]
        start, began = self.iteration, time.perf_counter()
        batches = IterationBatches(len(self.labeled), batch, self.seed, start=start, end=self.total)
        labeled = iter(iteration_loader(self.labeled, batches, workers))
        unlabeled = None
        sums: dict[str, float] = defaultdict(float)
        with run_folder.RunLog(folder, key="iteration", start=start, purge_step=start) as log:
            logger.info(
                "method %s: %d labeled and %d unlabeled videos; %d iterations of burn-in, %d of self-training, on %s; "
                "run folder %s", self.semi["method"], len(self.labeled), len(self.split.unlabeled), self.burn_in,
                self.semi["iterations"], self.device, folder,
            )  # fmt: skip
            for iteration in tqdm(
                range(start, self.total), initial=start, total=self.total, desc=self.semi["method"], unit="it",
                leave=False, disable=None if progress else True,
            ):  # fmt: skip
                if iteration % batches.per_epoch == 0:
                    torch.manual_seed(derive_seed(self.seed, iteration // batches.per_epoch, "model"))
                if self.unlabeled is not None and iteration >= self.burn_in and unlabeled is None:
                    unlabeled = iter(self._unlabeled_loader(iteration, workers))
                values = self.step(next(labeled), None if unlabeled is None else next(unlabeled))
                for name, value in values.items():
                    sums[name] += value
                if self.iteration % self.semi["log_every"] == 0 or self.iteration == self.total:
                    self._log(log, dict(sums), start, began)
                    sums.clear()
                self._save(folder)

    def _unlabeled_loader(self, iteration: int, workers: int) -> Any:
        batches = IterationBatches(
            len(self.unlabeled), self.semi["unlabeled_batch_size"], self.seed,
            start=iteration - self.burn_in, end=self.semi["iterations"], name="unlabeled",
        )  # fmt: skip
        return iteration_loader(self.unlabeled, batches, workers)

    def step(self, labeled: list[dict[str, Any]], unlabeled: list[dict[str, Any]] | None) -> dict[str, float]:
        """One iteration. Returns what is logged: sums over the `count` iterations since the last log."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        if self.semi["labeled_view"] == "strong":
            labeled = [self._labeled_view(video) for video in labeled]
        losses = self.model(labeled)
        total = losses["final_loss"]
        values = {"count": 1.0} | {f"labeled/{name}": float(loss.detach()) for name, loss in losses.items()}
        if unlabeled is not None:
            extra, more = self.unlabeled_loss(unlabeled)
            weight = self.semi["alpha"] * ramp(self.iteration - self.burn_in, self.semi["ramp_up"])
            total = total + weight * extra
            values |= more
        total.backward()
        clip = self.config["train_cfg"]["clip_grad_l2norm"]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip if clip > 0 else float("inf"))
        check_finite(values | {"gradient norm": float(norm)}, labeled + (unlabeled or []), 0, self.iteration)
        self.optimizer.step()
        self.scheduler.step()
        self.ema.update(self.model)
        self.iteration += 1
        return values

    def unlabeled_loss(self, videos: list[dict[str, Any]]) -> tuple[Tensor, dict[str, float]]:
        """Loss of the student on strong views, with targets from the teacher on weak ones."""
        if self.criterion is None:
            self.criterion = self._criterion(self.model.loss_normalizer)
        weak = [self._view(video, "weak")[0] for video in videos]
        pseudo = self.pseudo_labels(weak)
        targets = [
            self._class_targets(video, found, i) for i, (video, found) in enumerate(zip(weak, pseudo, strict=True))
        ]
        strong, segments, kept_targets = [], [], []
        for video, found, (y, w) in zip(weak, pseudo, targets, strict=True):
            view, geometry = self._view(video, "strong")
            moved, kept = geometry.project(found.segments.cpu(), view["feats"].shape[1])
            strong.append(view)
            segments.append(moved.to(self.device))
            kept_targets.append(ClassTargets(y[kept.to(y.device)], w[kept.to(w.device)]))

        (batch,) = self.model.batches(strong)
        output = self.model.network(batch.feats, batch.mask)
        point_targets = spread(
            output, segments, kept_targets, options=self.semi["pseudo"],
            center_sample=self.config["train_cfg"]["center_sample"],
            center_sample_radius=self.config["train_cfg"]["center_sample_radius"],
        )  # fmt: skip
        losses = self.criterion(
            torch.cat(output.logits, dim=1), torch.cat(output.offsets, dim=1), point_targets,
            labeled_normalizer=self.model.loss_normalizer,
        )  # fmt: skip
        values = {f"unlabeled/{name}": float(loss.detach()) for name, loss in losses.items()}
        return losses["loss"], values | self._describe(weak, pseudo, segments)

    @torch.no_grad()
    def pseudo_labels(self, videos: list[dict[str, Any]]) -> list[PseudoSegments]:
        """Selected segments of the teacher on these videos, in their order."""
        teacher = self._teacher()
        found: dict[int, PseudoSegments] = {}
        for batch in teacher.batches(videos):
            output = teacher.network(batch.feats, batch.mask, batch.lengths)
            for row, i in enumerate(batch.index):
                found[i] = propose(output, row, self.semi["pseudo"])
        proposals = [found[i] for i in range(len(videos))]
        for proposal in proposals:
            self._update_class_scores(proposal)
        return [select(proposal, self.semi["pseudo"], self.class_scores) for proposal in proposals]

    def _teacher(self) -> Any:
        pseudo = self.semi["pseudo"]
        if pseudo["source"] == "online":
            return self.ema.module
        if self.frozen is None or (self.iteration - self.burn_in) % pseudo["refresh_every"] == 0:
            if self.frozen is None:
                self.frozen = ModelEma(self.ema.module)
            self.frozen.set(self.ema.module)
        return self.frozen.module

    def _update_class_scores(self, found: PseudoSegments) -> None:
        """Running mean per class of the best score that a video gives it, for `pseudo.select: per_class`."""
        if not len(found.scores):
            return
        best = torch.zeros_like(self.class_scores)
        best.scatter_reduce_(0, found.logits.argmax(dim=-1).cpu(), found.scores.cpu(), reduce="amax")
        seen = best > 0
        updated = CLASS_SCORE_MOMENTUM * self.class_scores + (1 - CLASS_SCORE_MOMENTUM) * best
        self.class_scores = torch.where(seen, torch.where(self.class_scores > 0, updated, best), self.class_scores)

    def _view(self, video: dict[str, Any], kind: str) -> tuple[dict[str, Any], Any]:
        seed = derive_seed(self.seed, self.iteration, video["video_id"], kind)
        feats, geometry = make_view(video["feats"], self.semi[kind], torch.Generator().manual_seed(seed))
        return {**video, "feats": feats}, geometry

    def _labeled_view(self, video: dict[str, Any]) -> dict[str, Any]:
        view, geometry = self._view(video, "strong")
        segments, kept = geometry.project(video["segments"], view["feats"].shape[1])
        return {**view, "segments": segments, "labels": video["labels"][kept]}

    def _class_targets(self, video: dict[str, Any], found: PseudoSegments, row: int) -> ClassTargets:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.iteration, row, "method"))
        truth = None
        if self.semi["method"] == ORACLE:
            truth = self.hidden.true_class(video, found).to(found.logits.device)
        options = Options(
            form=self.semi["form"], lam=self.semi["lam"], positive=self.semi["positive"],
            positive_reduction=self.semi["positive_reduction"], generator=generator, true_class=truth,
        )  # fmt: skip
        return self.method(found.probs, options)

    # ---------------------------------------------------------------- records

    def _describe(
        self, videos: list[dict[str, Any]], pseudo: list[PseudoSegments], projected: list[Tensor]
    ) -> dict[str, float]:
        count = sum(len(found.scores) for found in pseudo)
        self.without_pseudo = 0 if count else self.without_pseudo + 1
        if self.without_pseudo and self.without_pseudo % 200 == 0:
            logger.warning(
                "iteration %d: the teacher has found no segment for %d iterations; semi_cfg.pseudo.threshold is %g",
                self.iteration, self.without_pseudo, self.semi["pseudo"]["threshold"],
            )  # fmt: skip
        values = {"unlabeled/videos": float(len(videos)), "pseudo/segments": float(count)}
        values["pseudo/projected"] = float(sum(len(s) for s in projected))
        if count:
            parts = partition(torch.cat([found.probs for found in pseudo]), self.semi["lam"])
            for name, mask in zip(parts._fields, parts, strict=True):
                values[f"space/{name}"] = float(mask.sum())
        if self.hidden is not None and self.semi["log_hidden"]:
            counts = self.hidden.measure(videos, pseudo, self.semi["lam"])
            values |= {f"hidden_count/{name}": value for name, value in counts.items()}
        return values

    def _log(self, log: run_folder.RunLog, sums: dict[str, float], start: int, began: float) -> None:
        count = sums.pop("count")
        hidden = rates({name.split("/")[1]: v for name, v in sums.items() if name.startswith("hidden_count/")})
        segments = sums.get("pseudo/segments", 0.0)
        values = {}
        for name, total in sums.items():
            if name.startswith("space/"):  # classes per segment
                values[name] = total / segments if segments else 0.0
            elif name.startswith("pseudo/"):  # segments per video
                values[name] = total / sums["unlabeled/videos"]
            elif not name.startswith("hidden_count/") and name != "unlabeled/videos":
                values[name] = total / count
        values |= hidden | {"lr": self.scheduler.get_last_lr()[0]}
        if self.criterion is not None:
            values["unlabeled/normalizer"] = self.criterion.normalizer
        for name, value in values.items():
            log.writer.add_scalar("train/learning_rate" if name == "lr" else name, value, self.iteration)
        log.record({"iteration": self.iteration} | values)
        shown = ("labeled/final_loss", "unlabeled/loss", "pseudo/segments", "hidden/precision")
        logger.info(
            "iteration %d/%d %s lr %.2e ETA %s", self.iteration, self.total,
            " ".join(f"{name} {values[name]:.4f}" for name in shown if name in values), values["lr"],
            run_folder.format_time_left(began, self.iteration - start, self.total - start),
        )  # fmt: skip

    def _save(self, folder: Path) -> None:
        last = self.iteration == self.total
        if last or self.iteration % self.semi["ckpt_every"] == 0:
            save_checkpoint(self.state(), False, str(folder), run_folder.LAST)
        if self.iteration == self.burn_in and self.semi["iterations"]:
            save_checkpoint(self.state(), False, str(folder), BURN_IN)


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
    folder = run_folder.prepare_folder(folder, resume=resume, overwrite=overwrite)
    trainer = SemiTrainer(config, diagnostic=diagnostic)
    if resume is not None:
        trainer.restore(run_folder.resume_point(resume))
    elif overwrite:
        run_folder.clear_folder(folder)
    if resume is None and config["semi_cfg"]["burn_in_checkpoint"]:
        path = Path(config["semi_cfg"]["burn_in_checkpoint"])
        trainer.restore(path)
        if trainer.iteration != trainer.burn_in:
            raise ValueError(f"{path}: after {trainer.iteration} iterations, but semi_cfg.burn_in is {trainer.burn_in}")
    run_folder.write_run_info(config, folder)
    trainer.run(folder, progress=progress)
    return folder


def evaluate(config: dict[str, Any], folder: str | Path, *, progress: bool = True) -> dict[str, engine.Evaluation]:
    """Evaluates the student ("raw" weights) and the teacher ("ema") of a finished run on `val_split`, without reading
    the hidden labels."""
    split = config["semi_cfg"]["split"]
    annotations = read_hidden(config["dataset"]["json_file"], read_split(split["file"], split["ratio"], split["fold"]))
    checkpoint = Path(folder) / run_folder.LAST
    return {
        name: engine.evaluate(config, checkpoint, weights=weights, annotations=annotations, progress=progress)
        for name, weights in (("student", "raw"), ("teacher", "ema"))
    }

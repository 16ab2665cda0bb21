"""Set-up of a semi-supervised run: configuration -> `SemiRun`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from actionformer_nt.config import SemiSection, semi_section
from actionformer_nt.methods import Method, Sizes, needs_truth
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from actionformer_nt.protocol.splits import Split, check_split, read_hidden, read_split, unlabeled_classes
from actionformer_nt.pseudo_sections import MOVING, ViewSection
from libs.core.device import select_device
from libs.core.seeding import derive_seed, fix_random_seed
from libs.core.types import Config
from libs.datasets import make_dataset
from libs.datasets.annotations import Annotations
from libs.datasets.dataset import TALDataset
from libs.training.build import build_updater
from libs.training.checks import check_events, check_parts
from libs.training.ema import ModelEma
from libs.training.run_identity import check_same_features
from libs.training.update import Updater

from .interface import SelfTraining, self_training_of
from .schedules import opt_of, schedule_of
from .stages import Stages
from .teacher import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SemiRun:
    """A semi-supervised run that is ready to train.

    Attributes:
        config: resolved; `train_cfg.head_empty_cls` lists the classes without a labeled event.
        teacher: None for the method `labeled_only`.
        shown: hidden labels for curves and snapshots; None unless `semi_cfg.log_hidden` is true.
        backwards: (C,) class that each class is when it is played backwards (`semi_cfg.reversed_classes`).
    """

    config: Config
    semi: SemiSection
    split: Split
    annotations: Annotations
    stages: Stages
    updater: Updater
    ema: ModelEma
    teacher: Teacher | None
    shown: HiddenLabels | None
    backwards: Tensor

    @property
    def seed(self) -> int:
        return self.config["init_rand_seed"]

    @property
    def model(self) -> Any:
        return self.updater.model


def set_up(config: Config, *, diagnostic: bool = False) -> SemiRun:
    """Reads the split and builds data sets, network, optimizer and teacher. `config` is not changed.

    Args:
        config: resolved, with `semi_cfg`.
        diagnostic: allow the method that uses hidden labels.

    Raises:
        ValueError: the configuration does not fit semi-supervised training, or the split does not fit the data.
    """
    config = copy.deepcopy(config)
    semi, train_cfg = semi_section(config), config["train_cfg"]
    check_config(config, diagnostic=diagnostic)
    device = select_device(config)
    fix_random_seed(config["init_rand_seed"])
    split = read_split(semi.split.file, semi.split.ratio, semi.split.fold)
    annotations = read_hidden(config["dataset"]["json_file"], split)
    check_split(config, annotations, split)
    if names := unlabeled_classes(annotations, split):
        logger.warning("split %s: no labeled video of %d classes: %s", split.source, len(names), ", ".join(names))
    method = semi.make_method()
    stages = Stages(
        config,
        labeled=_dataset(config, annotations, split.labeled),
        unlabeled=None if method is None else _dataset(config, annotations, split.unlabeled),
        every=_dataset(config, annotations, split.labeled + split.unlabeled) if _has_pretext(semi) else None,
    )
    check_events(stages.labeled, what="labeled")
    check_same_features(stages.labeled, stages.unlabeled, what="features of unlabeled videos")
    reads_hidden = semi.log_hidden or needs_truth(semi.method)
    hidden = HiddenLabels(config, split) if reads_hidden and split.unlabeled else None

    train_cfg["head_empty_cls"] = stages.labeled.get_attributes()["empty_label_ids"]
    first = stages.stages[0]
    updater, ema = build_updater(
        config | {"opt": opt_of(config, first)}, device, lambda optimizer: schedule_of(config, optimizer, first),
        extra=None if method is None else make_modules(config, method, "modules"),
    )  # fmt: skip
    backwards = played_backwards(semi.reversed_classes, annotations.label_ids, config["dataset"]["num_classes"])
    return SemiRun(
        config=config, semi=semi, split=split, annotations=annotations, stages=stages, updater=updater, ema=ema,
        teacher=_teacher(config, method, stages, ema, hidden, backwards), shown=hidden if semi.log_hidden else None,
        backwards=backwards,
    )  # fmt: skip


def _dataset(config: Config, annotations: Annotations, videos: tuple[str, ...]) -> TALDataset:
    dataset: TALDataset = make_dataset(
        config["dataset_name"], True, config["train_split"], **config["dataset"],
        annotations=annotations, video_ids=frozenset(videos), seed=config["init_rand_seed"],
    )  # fmt: skip
    return dataset


def played_backwards(pairs: Sequence[Sequence[str]], label_ids: dict[str, int], num_classes: int) -> Tensor:
    """(C,) class that each class is when it is played backwards.

    Raises:
        ValueError: a name that is no class, or one that occurs twice.
    """
    backwards = torch.arange(num_classes)
    names = [name for pair in pairs for name in pair]
    for name in names:
        if name not in label_ids:
            raise ValueError(f"semi_cfg.reversed_classes: '{name}' is not one of the classes {sorted(label_ids)}")
        if names.count(name) > 1:
            raise ValueError(f"semi_cfg.reversed_classes: '{name}' is in it more than once")
    for first, second in pairs:
        backwards[label_ids[first]], backwards[label_ids[second]] = label_ids[second], label_ids[first]
    return backwards


def make_modules(config: Config, method: Method, *seed: int | str) -> nn.Module | None:
    """New modules of a method, with random numbers of their own: the network gets those that it gets without them."""
    if not method.has_modules:
        return None
    width = self_training_of(config["model_name"]).feature_width(config)
    channels = config["dataset"]["input_dim"]
    sizes = Sizes(sum(channels) if isinstance(channels, list) else channels, width, config["dataset"]["num_classes"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config["init_rand_seed"], *seed))
        return method.modules(sizes)


def _teacher(
    config: Config, method: Method | None, stages: Stages, ema: ModelEma, hidden: HiddenLabels | None, backwards: Tensor
) -> Teacher | None:
    if method is None:
        return None
    semi = semi_section(config)
    self_training: SelfTraining = self_training_of(config["model_name"])(config, stages.labeled)
    return Teacher(
        semi, self_training, method, ema=ema, seed=config["init_rand_seed"],
        hidden=hidden if method.needs_truth else None, backwards=backwards,
    )  # fmt: skip


def _has_pretext(semi: SemiSection) -> bool:
    return any(stage.learn == "pretext" for stage in semi.plan())


def check_config(config: Config, *, diagnostic: bool = False) -> None:
    """Checks that a resolved configuration fits semi-supervised training.

    Args:
        diagnostic: allow the method that uses hidden labels.

    Raises:
        ValueError: it does not; names the key.
    """
    semi = semi_section(config)
    if config["test_cfg"]["ext_score_file"] and not semi.allow_external_scores:
        raise ValueError(
            "test_cfg.ext_score_file: external scores come from a model that may have seen hidden labels; set "
            "semi_cfg.allow_external_scores: true to use them all the same, and say so with every result"
        )
    if not config["train_cfg"]["ema_ramp"]:
        raise ValueError("train_cfg.ema_ramp must be true: without it the teacher is mostly the random initialisation")
    sizes = {"loader.batch_size": config["loader"]["batch_size"]}
    check_parts(config["train_cfg"]["accumulate"], sizes | {"semi_cfg.unlabeled_batch_size": semi.unlabeled_batch_size})
    if needs_truth(semi.method) and not diagnostic:
        raise ValueError(f"method {semi.method} uses hidden labels and runs only as a diagnostic (study --diagnostic)")
    if (method := semi.make_method()) is not None:
        _check_hooks(semi, method)
    _check_weak_view(semi)
    self_training = self_training_of(config["model_name"])
    self_training.check(config)
    if _has_pretext(semi) and not self_training.has_pretext and not (method is not None and method.has_pretext):
        key = f"semi_cfg.pretrain: {semi.pretrain}" if semi.stages is None else "semi_cfg.stages: learn: pretext"
        raise ValueError(
            f"{key}: neither model_name: {config['model_name']} nor method {semi.method} has pretext tasks; leave it "
            "out"
        )
    if method is not None and method.needs_quality:
        for section, key in (("model", "quality"), ("test_cfg", "quality_score")):
            if not config[section].get(key):  # type: ignore[literal-required]
                raise ValueError(f"{section}.{key}: method {semi.method} ranks by the quality head; set it to true")


def _check_hooks(semi: SemiSection, method: Method) -> None:
    """Raises ValueError if a method has nothing that trains, or does not fit the stages."""
    for part in method.each():
        _check_part(semi, part)
    modules = method.has_modules and semi.burn_in_checkpoint is not None
    first = next((stage for stage in semi.plan() if stage.learn == "pseudo"), None)
    if modules and first is not None and first.schedule == "continued":
        raise ValueError(
            f"semi_cfg.burn_in_checkpoint: its optimizer does not know the modules of method {semi.method}; give the "
            "first stage with learn: pseudo schedule: own"
        )
    if not method.has_lessons:
        if semi.on_collapse == "stop":
            raise ValueError(f"semi_cfg.on_collapse: stop: method {semi.method} has no pseudo labels to watch")
        if first is not None and first.teacher == "frozen":
            logger.warning(
                "method %s compares the student with its average, but the teacher is frozen; stages have teacher: "
                "online for that", semi.method,
            )  # fmt: skip
    stored = {stage.labels for stage in semi.plan() if stage.learn == "pseudo"} == {"stored"}
    if stored and semi.weak != ViewSection() and not method.compares:
        raise ValueError(
            "semi_cfg.weak: without effect, since all pseudo labels are stored; leave it out, or labels: views"
        )


def _check_part(semi: SemiSection, method: Method) -> None:
    hooks = ("teach", "locate", "consistency", "auxiliary")
    own = [name for name in hooks if getattr(type(method), name) is not getattr(Method, name)]
    if not own or not (method.has_lessons or method.compares):
        raise ValueError(
            f"semi_cfg.method: {semi.method}: class {type(method).__name__} has neither `teach`, which returns the "
            "lesson of every video, nor `locate`, which changes lessons, nor `student_views` and `consistency`, which "
            "compares student and teacher (docs/add-a-method.md)"
        )
    if bool(method.student_views) > ("consistency" in own):
        raise ValueError(
            f"semi_cfg.method: {semi.method}: class {type(method).__name__} has `student_views`, but no `consistency`"
        )


def _check_weak_view(semi: SemiSection) -> None:
    """Raises ValueError if hidden labels would be compared with pseudo labels of a weak view that moves events."""
    moving = [f"semi_cfg.weak.{name}" for name in MOVING if getattr(semi.weak, name)]
    seen = any(stage.learn == "pseudo" and stage.labels == "views" for stage in semi.plan())
    reads_hidden = semi.log_hidden or needs_truth(semi.method)
    if moving and seen and reads_hidden and semi.make_method() is not None:
        reader = "semi_cfg.log_hidden: true" if semi.log_hidden else f"method {semi.method}"
        raise ValueError(
            f"{', '.join(moving)}: moves events in the weak view, but {reader} compares its pseudo labels with hidden "
            "labels where they are in the video; set it to 0, or leave out the other"
        )

"""Optimizer and learning-rate schedule of a stage."""

from __future__ import annotations

import torch

from libs.core.types import Config, OptConfig
from libs.training.optim import IterationLR

from .stages import Stage


def opt_of(config: Config, stage: Stage) -> OptConfig:
    """The section `opt` for a stage: the run's, with the keys that the stage sets."""
    opt = config["opt"].copy()
    for key, value in stage.opt.model_dump(exclude={"warmup_iterations"}, exclude_none=True).items():
        opt[key] = value  # type: ignore[literal-required]
    return opt


def schedule_of(config: Config, optimizer: torch.optim.Optimizer, stage: Stage) -> IterationLR:
    """Learning rate, per iteration, of a stage and of the stages that share its schedule."""
    opt = opt_of(config, stage)
    return IterationLR(
        optimizer,
        warmup_epochs=stage.warmup,
        max_epochs=stage.schedule_end - stage.schedule_start,
        milestones=opt["schedule_steps"] if opt["schedule_type"] == "multistep" else None,
        gamma=opt["schedule_gamma"],
        eta_min=1e-8 if stage.warmup else 0.0,
    )

"""From the keys of a `model` section to the modules of ActionFormer's detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from libs.core.registry import BACKBONES, NECKS
from libs.core.types import TestConfig, TrainConfig

from .batching import PaddingRule
from .chunks import receptive_field
from .class_form import ClassForm
from .criterion import Criterion
from .heads import ClsHead, QualityHead, RegHead

# Steps by which a video may be padded to join a longer one's batch in training on a CPU, times the width of the network
# squared: 128 steps at width 64, two at width 512. A batch more costs about as much.
SPARE_WORK = 128 * 64**2


@dataclass(frozen=True, kw_only=True)
class ModelKeys:
    """Keys of the resolved `model` section. `libs/core/actionformer_section.py` explains them."""

    backbone_type: str
    fpn_type: str
    backbone_arch: tuple[int, int, int]  # numbers of embedding convolutions, stem blocks and downsampling blocks
    scale_factor: int
    input_dim: int | list[int]
    max_seq_len: int
    n_head: int
    n_mha_win_size: int | list[int]
    embd_kernel_size: int
    embd_dim: int | list[int]
    embd_with_ln: bool
    fpn_dim: int
    fpn_with_ln: bool
    fpn_start_level: int
    head_dim: int
    regression_range: list[tuple[float, float]]
    head_num_layers: int
    head_kernel_size: int
    head_with_ln: bool
    use_abs_pe: bool
    use_rel_pe: bool
    num_classes: int
    train_cfg: TrainConfig
    test_cfg: TestConfig
    class_form: ClassForm | str = ClassForm.SIGMOID
    quality: bool = False
    max_buffer_len_factor: float = 1.0  # without effect; size of ActionFormer's position buffer

    @property
    def has_attention(self) -> bool:
        return self.backbone_type == "convTransformer"

    @property
    def strides(self) -> list[int]:
        """Strides of the backbone's levels, finest first."""
        return [self.scale_factor**level for level in range(self.backbone_arch[2] + 1)]

    @property
    def fpn_strides(self) -> list[int]:
        """Strides of the pyramid levels from `fpn_start_level` on, which the heads see."""
        return self.strides[self.fpn_start_level :]

    @property
    def windows(self) -> list[int]:
        """Attention windows of the stem and of each downsampling block."""
        size = self.n_mha_win_size
        return [size] * len(self.strides) if isinstance(size, int) else list(size)


def build_modules(keys: ModelKeys) -> dict[str, Any]:
    """The arguments of `meta_archs.PyramidDetector`."""
    train_cfg = keys.train_cfg
    # the order of construction decides the random initialisation
    backbone = _backbone(keys)
    neck = NECKS.build(
        keys.fpn_type,
        in_channels=[_total(keys.embd_dim)] * len(keys.strides),
        out_channel=keys.fpn_dim,
        scale_factor=keys.scale_factor,
        start_level=keys.fpn_start_level,
        with_ln=keys.fpn_with_ln,
    )
    cls_head, reg_head = _heads(keys)
    quality_head = QualityHead(**_tower(keys)) if keys.quality else None  # last: the others start as without it
    criterion = Criterion(
        loss_weight=train_cfg["loss_weight"],
        label_smoothing=train_cfg["label_smoothing"],
        init_loss_norm=train_cfg["init_loss_norm"],
        class_form=keys.class_form,
        quality_weight=train_cfg.get("quality_weight", 1.0),
        soft_labels=train_cfg.get("soft_labels", False),
    )
    return {
        "backbone": backbone,
        "neck": neck,
        "cls_head": cls_head,
        "reg_head": reg_head,
        "quality_head": quality_head,
        "criterion": criterion,
        "padding": _padding(keys),
        "receptive_field": _receptive_field(keys),
        "fpn_strides": keys.fpn_strides,
        "regression_range": [(low, high) for low, high in keys.regression_range],
        "input_dim": _total(keys.input_dim),
        "num_classes": keys.num_classes,
        "class_form": ClassForm(keys.class_form),
        "train_cfg": train_cfg,
        "test_cfg": keys.test_cfg,
    }


def _backbone(keys: ModelKeys) -> nn.Module:
    options: dict[str, Any] = {
        "n_in": keys.input_dim,
        "n_embd": keys.embd_dim,
        "n_embd_ks": keys.embd_kernel_size,
        "arch": tuple(keys.backbone_arch),
        "scale_factor": keys.scale_factor,
        "with_ln": keys.embd_with_ln,
    }
    if keys.has_attention:
        options |= {
            "n_head": keys.n_head,
            "max_len": keys.max_seq_len,
            "windows": keys.windows,
            "attn_pdrop": keys.train_cfg["dropout"],
            "path_pdrop": keys.train_cfg["droppath"],
            "use_abs_pe": keys.use_abs_pe,
            "use_rel_pe": keys.use_rel_pe,
        }
    return BACKBONES.build(keys.backbone_type, **options)


def _tower(keys: ModelKeys) -> dict[str, Any]:
    """What all heads have in common."""
    return {
        "in_dim": keys.fpn_dim,
        "dim": keys.head_dim,
        "num_layers": keys.head_num_layers,
        "kernel_size": keys.head_kernel_size,
        "with_ln": keys.head_with_ln,
    }


def _heads(keys: ModelKeys) -> tuple[ClsHead, RegHead]:
    tower = _tower(keys)
    cls_head = ClsHead(
        **tower,
        num_classes=keys.num_classes,
        prior_prob=keys.train_cfg["cls_prior_prob"],
        empty_cls=keys.train_cfg["head_empty_cls"],
        form=keys.class_form,
    )
    return cls_head, RegHead(**tower, num_levels=len(keys.fpn_strides))


def _padding(keys: ModelKeys) -> PaddingRule:
    # as in ActionFormer, strides and windows are paired by position even if `fpn_start_level` > 0
    pairs = zip(keys.fpn_strides, keys.windows, strict=False)
    return PaddingRule(
        keys.max_seq_len,
        tuple(keys.strides),
        tuple(stride * 2 * (window // 2) if window > 1 else stride for stride, window in pairs),
        halo=max(1, keys.embd_kernel_size // 2, keys.head_kernel_size // 2),
        spare=SPARE_WORK // _total(keys.embd_dim) ** 2,
    )


def _receptive_field(keys: ModelKeys) -> int | None:
    if keys.use_abs_pe:  # the position encoding depends on the length of the video
        return None
    return receptive_field(
        arch=keys.backbone_arch,
        scale_factor=keys.scale_factor,
        embd_kernel_size=keys.embd_kernel_size,
        windows=keys.windows if keys.has_attention else None,
        head_reach=keys.head_num_layers * (keys.head_kernel_size // 2),
    )


def _total(channels: int | list[int]) -> int:
    return sum(channels) if isinstance(channels, (list, tuple)) else channels

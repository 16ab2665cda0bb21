"""The typed schema of a configuration file: every key, its type, its default, and what fits together.

Keys, defaults and meanings are ActionFormer's. The docstring of a key that ActionFormer does not have begins with
"Ours."; the default of such a key keeps ActionFormer's behaviour. `tools/key_tables.py` copies the docstrings into the
tables of docs/.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)


class Section(BaseModel):
    """A section of the file. Unknown keys are errors, and defaults are checked like given values."""

    model_config = ConfigDict(
        extra="forbid", validate_default=True, protected_namespaces=(), use_attribute_docstrings=True
    )

    @classmethod
    def check_data(cls, model: dict[str, Any], data: dict[str, Any]) -> None:
        """Checks a resolved `model` section against the resolved `dataset` section. Architectures override this.

        Raises:
            ValueError: the two do not fit; names key and value.
        """


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true/false")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a finite number is expected")
    return value


Count = Annotated[PositiveInt, BeforeValidator(_no_bool)]
Number = Annotated[int | float, BeforeValidator(_no_bool), AfterValidator(_finite)]  # 4 stays 4, "1e-4" is a number
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]


class DatasetSection(Section):
    json_file: str
    feat_folder: str | list[str]
    file_prefix: str | None
    file_ext: str
    feat_stride: Number = 16
    """Frames from one feature to the next; <= 0: features are spread evenly over the video (ActivityNet)."""
    num_frames: NonNegative = 32
    """Frames that one feature covers; 0: feature x belongs to frame x * feat_stride."""
    default_fps: Positive | None = None
    """Frames per second of all videos; `null`: each video's own `fps`."""
    input_dim: Count | list[Count] = 2304
    num_classes: Count = 97
    downsample_rate: Count = 1
    max_seq_len: Count = 2304
    trunc_thresh: Fraction = 0.5
    crop_ratio: tuple[Positive, Positive] | None = None
    force_upsampling: bool = False
    cache_mib: NonNegativeInt = 0
    """Ours. Size in MiB of the feature cache of each process that reads features; useful for `.csv`, `.npz` and slow
    disks."""
    tiou_thresholds: list[Positive] | None = None
    """Ours. tIoU thresholds of the evaluation; `null`: the benchmark's."""
    missing_features: Literal["skip", "error"] | None = None
    """Ours. Whether a video without features is skipped or an error; `null`: as the benchmark's reader does."""
    duplicates: Literal["keep", "remove"] | None = None
    """Ours. Whether training keeps repeated events; `null`: as the benchmark's reader does."""

    @model_validator(mode="after")
    def _check(self) -> DatasetSection:
        if self.crop_ratio is not None:
            low, high = self.crop_ratio
            if not low <= high <= 1:
                raise ValueError(f"crop_ratio {[low, high]}: expected 0 < low <= high <= 1, such as [0.9, 1.0]")
        return self


class LoaderSection(Section):
    batch_size: Count = 8
    num_workers: NonNegativeInt = 4
    bucketing: bool = False
    """Ours. Fills each batch with videos of similar length; the order is seeded."""
    eval_batch_size: Count = 1
    """Ours. Videos per batch in evaluation; results do not depend on it."""


class TrainSection(Section):
    center_sample: Literal["radius", "none"] = "radius"
    center_sample_radius: Positive = 1.5
    loss_weight: Number = 1.0
    """Weight of the regression loss; <= 0: chosen in every iteration so that it equals the classification
    loss."""
    cls_prior_prob: Annotated[Number, Field(lt=1)] = 0.01
    """Initial score of every class; <= 0: biases start at 0."""
    init_loss_norm: Positive = 2000
    clip_grad_l2norm: Number = -1
    """Largest norm of the gradient; <= 0: gradients are not clipped."""
    head_empty_cls: list[int] = []
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    droppath: Annotated[Number, Field(ge=0, lt=1)] = 0.1
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    accumulate: Count = 1
    """Ours. Gradient accumulation: number of equal parts of a batch that go through the network one after another, with
    the memory of one part; gradients are averaged. The loss normaliser is updated with every part, so choose
    `init_loss_norm` for one part. Batch sizes must be multiples of `accumulate` times the number of processes."""
    ema_decay: Annotated[Number, Field(ge=0, lt=1)] = 0.999
    """Ours. Decay of the exponential moving average (EMA) of the weights."""
    amp: Literal["off", "bf16", "fp16"] = "off"
    """Ours. Mixed precision: `bf16` and `fp16` run the network under autocast, in evaluation too; losses, decoding and
    NMS stay in float32. SPOT supports `off` only."""
    compile: bool = False
    """Ours. Trains the network under torch.compile: losses and gradients agree with the uncompiled network to 1e-7, and
    the first step takes minutes on a CPU. Evaluation and the teacher stay uncompiled."""
    numbered_checkpoints: Literal["weights", "full"] = "weights"
    """Ours. Content of `epoch_NNN.pth.tar`: `weights` suffices for evaluation, `full` for resuming too. `last.pth.tar`
    is always full."""
    quality_weight: NonNegative = 1.0
    """Ours. Weight of the loss of the quality head (`model.quality`)."""
    soft_labels: bool = False
    """Ours. The class target of an event's point is clip(tIoU - centre distance, 0, 1) of its present segment, instead
    of 1, with the quality focal loss. Sigmoid form only."""
    ema_ramp: bool = False
    """Ours. The decay at update t is min(`ema_decay`, (1 + t) / (10 + t)) instead of `ema_decay`."""


class TestSection(Section):
    pre_nms_thresh: Fraction = 0.001
    pre_nms_topk: Count = 5000
    iou_threshold: Fraction = 0.1
    min_score: Fraction = 0.01
    max_seg_num: Count = 1000
    nms_method: Literal["soft", "hard", "none"] = "soft"
    nms_sigma: Positive = 0.5
    duration_thresh: Number = 0.05
    """Shortest detection, in steps of the feature grid."""
    multiclass_nms: bool = True
    ext_score_file: str | None = None
    voting_thresh: Fraction = 0.75
    ext_score_num_pred: Count = 200
    """Ours. Detections per video that are fused with external video scores, best first."""
    ext_score_topk: Count = 2
    """Ours. Most probable external classes that the fusion combines with each detection."""
    quality_score: bool = True
    """Ours. Multiplies scores by clip(tIoU - centre distance, 0, 1), as the quality head predicts them. No effect
    without `model.quality`."""
    chunk_len: Count | None = 16384
    """Ours. Grid steps. A longer video goes through the network in overlapping chunks; the result is identical. `null`:
    never. Networks with global attention or absolute positions always see the whole video."""


class OptSection(Section):
    type: Literal["AdamW", "SGD"] = "AdamW"
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 0.0
    learning_rate: NonNegative = 1e-3
    epochs: Count = 30
    warmup: bool = True
    warmup_epochs: NonNegativeInt = 5
    schedule_type: Literal["cosine", "multistep"] = "cosine"
    schedule_steps: list[NonNegativeInt] = []
    schedule_gamma: Positive = 0.1
    early_stop_epochs: Count | None = None


class RootSection(Section):
    """The whole file. `model` and sections of plug-ins are checked against the schema registered for them."""

    init_rand_seed: int = 1234567891
    dataset_name: str = "epic"
    devices: list[str] = ["cuda:0"]
    train_split: list[str] = ["training"]
    val_split: list[str] = ["validation"]
    model_name: str = "LocPointTransformer"
    output_folder: str = "./ckpt"
    plugins: list[str] = []
    """Ours. Modules imported before the file is checked; they may register sections, architectures and datasets."""
    dataset: DatasetSection
    loader: LoaderSection = LoaderSection()
    model: dict[str, Any] = {}
    opt: OptSection = OptSection()
    train_cfg: TrainSection = TrainSection()
    test_cfg: TestSection = TestSection()

    @model_validator(mode="after")
    def _check(self) -> RootSection:
        for key in ("train_split", "val_split"):
            split = getattr(self, key)
            if not split or [s for s in split if s != s.lower()]:
                raise ValueError(f"{key} {split}: give at least one subset name, in lower case")
        bad = [c for c in self.train_cfg.head_empty_cls if not 0 <= c < self.dataset.num_classes]
        if bad:
            raise ValueError(
                f"train_cfg.head_empty_cls {bad} outside [0, dataset.num_classes={self.dataset.num_classes})"
            )
        return self

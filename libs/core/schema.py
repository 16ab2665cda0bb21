"""The typed schema of a configuration file: every key, its type, its default, and what fits together.

Keys, defaults and meanings are ActionFormer's. The docstring of a key that ActionFormer does not have begins with
"Ours."; the default of such a key keeps ActionFormer's behaviour. `tools/key_tables.py` copies the docstrings into the
tables of docs/.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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


class LocPointTransformerSection(Section):
    """The `model` section of ActionFormer's architecture."""

    backbone_type: Literal["convTransformer", "conv"] = "convTransformer"
    fpn_type: Literal["identity", "fpn"] = "identity"
    backbone_arch: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (2, 2, 5)
    scale_factor: Count = 2
    regression_range: list[tuple[Number, Number]] = [(0, 4), (4, 8), (8, 16), (16, 32), (32, 64), (64, 10000)]
    n_head: Count = 4
    n_mha_win_size: int | list[int] = -1
    embd_kernel_size: Count = 3
    embd_dim: Count | list[Count] = 512
    embd_with_ln: bool = True
    fpn_dim: Count = 512
    fpn_with_ln: bool = True
    fpn_start_level: NonNegativeInt = 0
    head_dim: Count = 512
    head_kernel_size: Count = 3
    head_num_layers: Count = 3
    head_with_ln: bool = True
    max_buffer_len_factor: Positive = 6.0
    """Without effect; accepted because ActionFormer's files contain it."""
    use_abs_pe: bool = False
    use_rel_pe: bool = False
    class_form: Literal["sigmoid", "softmax"] = "sigmoid"
    """Ours. An independent score per class (`sigmoid`), or one distribution over all classes and the background
    (`softmax`)."""

    @model_validator(mode="after")
    def _check(self) -> LocPointTransformerSection:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        branches, start = self.backbone_arch[2], self.fpn_start_level
        if start > branches:
            yield f"fpn_start_level {start} is above the coarsest level {branches} (backbone_arch[2])"
        levels = branches + 1 - start
        if len(self.regression_range) != levels:
            yield (
                f"regression_range has {len(self.regression_range)} ranges, but backbone_arch[2]={branches} and "
                f"fpn_start_level={start} make {levels} pyramid levels: give {levels} ranges or set "
                f"backbone_arch[2]={len(self.regression_range) - 1 + start}"
            )
        for low, high in self.regression_range:
            if not 0 <= low < high:
                yield f"regression_range {[low, high]}: expected 0 <= low < high"
        if self.scale_factor != 1 and self.scale_factor % 2:
            yield f"scale_factor {self.scale_factor} must be 1 or even"
        for key in ("embd_kernel_size", "head_kernel_size"):
            if getattr(self, key) % 2 == 0:
                yield f"{key} {getattr(self, key)} must be odd"
        width = sum(self.embd_dim) if isinstance(self.embd_dim, list) else self.embd_dim
        if width % self.n_head and self.backbone_type == "convTransformer":
            yield f"embd_dim {width} must be divisible by n_head {self.n_head}"
        if self.fpn_type == "identity" and width != self.fpn_dim:
            yield f"fpn_dim {self.fpn_dim} must equal embd_dim {width} with fpn_type: identity"
        yield from self._window_problems(branches)

    @classmethod
    def check_data(cls, model: dict[str, Any], data: dict[str, Any]) -> None:
        """Checks the channels and the maximum length of the features against the network."""
        if isinstance(data["input_dim"], list):
            if not isinstance(model["embd_dim"], list) or len(model["embd_dim"]) != len(data["input_dim"]):
                raise ValueError(
                    f"model.embd_dim: {model['embd_dim']} must be a list as long as dataset.input_dim: "
                    f"{data['input_dim']}"
                )
        elif isinstance(model["embd_dim"], list):
            raise ValueError("model.embd_dim: a list needs dataset.input_dim to be a list of that length")
        coarsest = model["scale_factor"] ** model["backbone_arch"][2]
        length = data["max_seq_len"]
        if length % coarsest:
            near = max(round(length / coarsest), 1) * coarsest
            raise ValueError(
                f"dataset.max_seq_len: {length} must be a multiple of the coarsest stride "
                f"scale_factor**backbone_arch[2] = {coarsest}, such as {near}"
            )

    def _window_problems(self, branches: int) -> Iterator[str]:
        windows = self.n_mha_win_size
        if isinstance(windows, list) and len(windows) != branches + 1:
            yield f"n_mha_win_size has {len(windows)} entries, expected 1 + backbone_arch[2] = {branches + 1}"
        for w in windows if isinstance(windows, list) else [windows]:
            if self.use_rel_pe and (w <= 1 or w % 2 == 0):
                yield (
                    f"n_mha_win_size {w}: use_rel_pe needs odd windows > 1 (one bias per offset), "
                    f"such as {w + 1 if w > 1 else 9}"
                )


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

"""Types of a resolved configuration, the nested dict that `load_config` returns.

`schema.py` holds the meaning, bounds and default of every key; a test checks that both files list the same keys. At run
time each section is a plain dict, which ActionFormer's scripts may read and change.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from typing_extensions import NotRequired


class DatasetConfig(TypedDict):
    """The section `dataset`."""

    json_file: str
    feat_folder: str | list[str]
    file_prefix: str | None
    file_ext: str
    feat_stride: float
    num_frames: float
    default_fps: float | None
    input_dim: int | list[int]
    num_classes: int
    downsample_rate: int
    max_seq_len: int
    trunc_thresh: float
    crop_ratio: list[float] | None
    force_upsampling: bool
    cache_mib: int
    tiou_thresholds: list[float] | None
    missing_features: Literal["skip", "error"] | None
    duplicates: Literal["keep", "remove"] | None


class LoaderConfig(TypedDict):
    """The section `loader`."""

    batch_size: int
    num_workers: int
    bucketing: bool
    eval_batch_size: int


class OptConfig(TypedDict):
    """The section `opt`."""

    type: Literal["AdamW", "SGD"]
    momentum: float
    weight_decay: float
    learning_rate: float
    epochs: int
    warmup: bool
    warmup_epochs: int
    schedule_type: Literal["cosine", "multistep"]
    schedule_steps: list[int]
    schedule_gamma: float
    early_stop_epochs: NotRequired[int]  # absent if the file does not set it


class TrainConfig(TypedDict):
    """The section `train_cfg`."""

    center_sample: Literal["radius", "none"]
    center_sample_radius: float
    loss_weight: float
    cls_prior_prob: float
    init_loss_norm: float
    clip_grad_l2norm: float
    head_empty_cls: list[int]
    dropout: float
    droppath: float
    label_smoothing: float
    accumulate: int
    ema_decay: float
    amp: Literal["off", "bf16", "fp16"]
    compile: bool
    numbered_checkpoints: Literal["weights", "full"]
    quality_weight: float
    soft_labels: bool
    ema_ramp: bool


class TestConfig(TypedDict):
    """The section `test_cfg`."""

    pre_nms_thresh: float
    pre_nms_topk: int
    iou_threshold: float
    min_score: float
    max_seg_num: int
    nms_method: Literal["soft", "hard", "none"]
    nms_sigma: float
    duration_thresh: float
    multiclass_nms: bool
    ext_score_file: str | None
    voting_thresh: float
    ext_score_num_pred: int
    ext_score_topk: int
    quality_score: bool
    chunk_len: int | None


class Config(TypedDict):
    """The whole configuration."""

    init_rand_seed: int
    dataset_name: str
    devices: list[str]
    train_split: list[str]
    val_split: list[str]
    model_name: str
    output_folder: str
    plugins: list[str]
    dataset: DatasetConfig
    loader: LoaderConfig
    model: dict[str, Any]  # validated by the schema of architecture `model_name`
    opt: OptConfig
    train_cfg: TrainConfig
    test_cfg: TestConfig
    semi_cfg: NotRequired[dict[str, Any]]  # validated by `actionformer_nt.config.SemiSection`

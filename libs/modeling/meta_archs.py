"""ActionFormer's architecture: backbone, neck, heads, losses and post-processing."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from libs.core.types import TestConfig, TrainConfig
from libs.datasets.video import VideoItem

from .assignment import Targets, assign_labels, events_of, pyramid_points
from .batching import Batch, PaddingRule, make_batches
from .build import ModelKeys, build_modules
from .chunks import in_chunks
from .class_form import ClassForm
from .criterion import Criterion
from .decode import Candidates, VideoDetections, decode, offsets_to_segments, postprocess
from .heads import ClsHead, QualityHead, RegHead
from .location_quality import predicted_factor

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # values of `train_cfg.amp`


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """Autocast context for `train_cfg.amp`: "off", "bf16" or "fp16"."""
    return torch.autocast(device.type, dtype=AMP_TYPES.get(amp), enabled=amp != "off")


class VideoOutput(NamedTuple):
    """Output of the network at the P valid points of one video, level by level, in float32."""

    logits: Tensor  # (P, C)
    segments: Tensor  # (P, 2) in grid steps
    quality: Tensor | None  # (P, 2) logits of the quality head


class PyramidOutput(NamedTuple):
    """Output of the network per pyramid level, finest first."""

    logits: list[Tensor]  # (B, T_l, C)
    offsets: list[Tensor]  # (B, T_l, 2) distances to start and end, in units of the level's stride
    masks: list[Tensor]  # (B, T_l) bool
    points: list[Tensor]  # (T_l, 4), see `pyramid_points`
    quality: list[Tensor] | None = None  # (B, T_l, 2) logits of the quality head

    def of_video(self, row: int) -> VideoOutput:
        """What the output says about the video in a row of the batch."""
        valid = torch.cat([mask[row] for mask in self.masks])

        def at_points(levels: list[Tensor]) -> Tensor:
            return torch.cat([level[row] for level in levels])[valid].float()

        segments = offsets_to_segments(torch.cat(list(self.points))[valid], at_points(self.offsets))
        quality = None if self.quality is None else at_points(self.quality)
        return VideoOutput(at_points(self.logits), segments, quality)


def join(parts: list[tuple[list[int], PyramidOutput]]) -> PyramidOutput:
    """Joins the outputs of batches of different lengths into one, padded to the longest.

    Args:
        parts: for every batch, the positions of its rows in the result, and its output.
    """
    if len(parts) == 1:
        return parts[0][1]
    outputs = [output for _, output in parts]
    longest = max(outputs, key=lambda output: len(output.points[0]))
    lengths = [len(points) for points in longest.points]
    row = torch.tensor([i for index, _ in parts for i in index]).argsort()

    def stack(name: str) -> list[Tensor]:
        levels = zip(*(getattr(output, name) for output in outputs), strict=True)
        return [
            torch.cat([F.pad(x, (0,) * (2 * x.ndim - 3) + (length - x.shape[1],)) for x in level])[
                row.to(level[0].device)
            ]
            for level, length in zip(levels, lengths, strict=True)
        ]

    quality = None if longest.quality is None else stack("quality")
    return PyramidOutput(stack("logits"), stack("offsets"), stack("masks"), longest.points, quality)


class PyramidDetector(nn.Module):
    """Single-stage detector: every point of a feature pyramid predicts class logits and the offsets of its event.

    `forward` is composed of the steps `batches`, `network`, `outputs`, `targets`, `losses`, `candidates` and
    `decode.postprocess`, which self-training calls separately.

    Args:
        fpn_strides, regression_range: strides and regression ranges of the levels that the heads see, finest first, in
            grid steps.
        receptive_field: see `chunks.receptive_field`.
        input_dim: channels of the features.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        cls_head: ClsHead,
        reg_head: RegHead,
        quality_head: QualityHead | None,
        criterion: Criterion,
        padding: PaddingRule,
        receptive_field: int | None,
        fpn_strides: list[int],
        regression_range: list[tuple[float, float]],
        input_dim: int,
        num_classes: int,
        class_form: ClassForm,
        train_cfg: TrainConfig,
        test_cfg: TestConfig,
    ) -> None:
        super().__init__()
        self.input_dim, self.num_classes, self.class_form = input_dim, num_classes, class_form
        self.fpn_strides, self.regression_range = fpn_strides, regression_range
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        self.padding, self.receptive_field = padding, receptive_field
        self.max_div_factor = max(padding.divisors)
        self.backbone, self.neck = backbone, neck
        self.cls_head, self.reg_head, self.quality_head = cls_head, reg_head, quality_head
        self.criterion = criterion

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def loss_normalizer(self) -> float:
        """Running mean of the number of positive points; training state that is not in the state dict."""
        return self.criterion.loss_normalizer

    @loss_normalizer.setter
    def loss_normalizer(self, value: float) -> None:
        self.criterion.loss_normalizer = float(value)

    def forward(self, video_list: list[VideoItem]) -> dict[str, Tensor] | list[VideoDetections]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            video_list: items of the data set, see `VideoItem`.

        Returns:
            In training the scalar losses of `Criterion.__call__`; else the detections of each video.
        """
        if self.training:
            output = self.outputs(video_list)
            return self.losses(output, self.targets(output, video_list))
        candidates: dict[int, Candidates] = {}
        with torch.no_grad():
            for batch in self.batches(video_list):
                output = self.infer(batch)
                for row, i in enumerate(batch.index):
                    candidates[i] = self.candidates(output, row, video_list[i])
        return postprocess([candidates[i] for i in range(len(video_list))], video_list, self.test_cfg)

    def batches(self, video_list: list[VideoItem]) -> list[Batch]:
        """Pads videos and puts them into batches, see `make_batches`."""
        return make_batches(
            video_list, self.padding, input_dim=self.input_dim, device=self.device, training=self.training
        )

    def network(self, feats: Tensor, mask: Tensor, lengths: Tensor | None = None) -> PyramidOutput:
        """Features (B, C, T) and mask (B, 1, T) -> logits and offsets per level, in float32 under any `train_cfg.amp`.
        `lengths`: see `Batch`."""
        with autocast(feats.device, self.train_cfg.get("amp", "off")):
            feats, masks = self.backbone(feats, mask, lengths)
            feats, masks = self.neck(feats, masks)
            logits = [x.transpose(1, 2).float() for x in self.cls_head(feats, masks)]
            offsets = [x.transpose(1, 2).float() for x in self.reg_head(feats, masks)]
            quality = None
            if self.quality_head is not None:
                quality = [x.transpose(1, 2).float() for x in self.quality_head(feats, masks)]
        masks = [m[:, 0] for m in masks]
        points = pyramid_points([m.shape[1] for m in masks], self.fpn_strides, self.regression_range, masks[0].device)
        return PyramidOutput(logits, offsets, masks, points, quality)

    def outputs(self, video_list: list[VideoItem]) -> PyramidOutput:
        """Runs `network` on a training batch; the rows of the output are in the order of the videos."""
        batches = self.batches(video_list)
        return join([(batch.index, self.network(batch.feats, batch.mask)) for batch in batches])

    def infer(self, batch: Batch) -> PyramidOutput:
        """Runs `network`, in overlapping chunks for videos longer than `test_cfg.chunk_len` if the receptive field is
        finite; the result is identical."""
        chunk = self.test_cfg.get("chunk_len")
        if chunk is None or self.receptive_field is None or batch.feats.shape[2] <= chunk:
            return self.network(batch.feats, batch.mask, batch.lengths)
        return in_chunks(
            self.network,
            batch.feats,
            batch.mask,
            chunk=chunk,
            halo=self.receptive_field,
            multiple=max(self.padding.strides),
        )

    def targets(self, output: PyramidOutput, video_list: list[VideoItem]) -> Targets:
        """Supervised targets of all pyramid points in `output`.

        Raises:
            ValueError: a label outside [0, num_classes); names the video.
        """
        segments, labels = [], []
        for video in video_list:
            s, y = events_of(video, self.num_classes)
            segments.append(s.to(self.device, torch.float32))
            labels.append(y.to(self.device))
        return assign_labels(
            torch.cat(output.points),
            torch.cat(output.masks, dim=1),
            segments,
            labels,
            num_classes=self.num_classes,
            center_sample=self.train_cfg["center_sample"],
            center_sample_radius=self.train_cfg["center_sample_radius"],
        )

    def losses(self, output: PyramidOutput, targets: Targets) -> dict[str, Tensor]:
        """Scalar losses, see `Criterion.__call__`."""
        logits, offsets = (torch.cat(levels, dim=1).float() for levels in (output.logits, output.offsets))
        quality = None if output.quality is None else torch.cat(output.quality, dim=1).float()
        return self.criterion(logits, offsets, targets, quality)

    def quality_factors(self, output: PyramidOutput, row: int) -> list[Tensor] | None:
        """Factors of the scores, (T_l,) per level, of the video in row `row`; None if quality is not in the scores."""
        if output.quality is None or not self.test_cfg.get("quality_score", True):
            return None
        return [predicted_factor(logits[row]) for logits in output.quality]

    def candidates(self, output: PyramidOutput, row: int, video: VideoItem) -> Candidates:
        """Candidates of `video`, which is row `row` of the batch, in grid steps, before NMS."""
        return decode(
            [z[row].float() for z in output.logits],
            [o[row].float() for o in output.offsets],
            [m[row] for m in output.masks],
            output.points,
            pre_nms_thresh=self.test_cfg["pre_nms_thresh"],
            pre_nms_topk=self.test_cfg["pre_nms_topk"],
            duration_thresh=self.test_cfg["duration_thresh"],
            factors=self.quality_factors(output, row),
            class_form=self.class_form,
            name=f"video '{video['video_id']}'",
        )


class PtTransformer(PyramidDetector):
    """ActionFormer's detector, from the keys of the `model` section (`build.ModelKeys`).

    Raises:
        TypeError: a key is missing or unknown.
    """

    def __init__(self, **model: Any) -> None:
        super().__init__(**build_modules(ModelKeys(**model)))

"""The architecture SPOT: network, targets, losses and decoding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from libs.core import distributed
from libs.core.types import TestConfig, TrainConfig
from libs.datasets.video import VideoItem
from libs.modeling.assignment import events_of
from libs.modeling.decode import Candidates, VideoDetections, postprocess
from libs.modeling.location_quality import predicted_factor

from .decode import decode
from .losses import class_loss, mask_loss, reconstruction_loss
from .network import SnippetEmbedding, SpotNetwork, SpotOutput
from .pretext import pretext_losses
from .quality import snippet_quality_loss
from .refine import refinement_loss
from .schema import SpotSection
from .targets import SpotTargets, assign_targets, class_weights
from .windows import Window, merge, windows


class SpotBatch(NamedTuple):
    """Windows of videos, padded to T snippets."""

    index: list[int]  # type: ignore[assignment]  # per row, the position of its video in the list of `batches`
    feats: Tensor  # (B, D, T)
    clean: Tensor  # (B, D, T) `feats` before masking, dropout and noise: the target of reconstruction
    mask: Tensor  # (B, 1, T) bool
    windows: list[Window]  # per row, its range of snippets in the video


class Spot(nn.Module):
    """Proposal-free detector: a softmax over C + 1 classes for every snippet and a mask over all T snippets.

    `forward` is composed of the steps `batches`, `network`, `targets`, `losses`, `candidates` and `detect`. T is
    `max_seq_len`. Either the data set rescales every video to T snippets (`force_upsampling`), or training uses random
    crops of at most T snippets, and inference overlapping windows.

    Args:
        input_dim, num_classes, max_seq_len: see the `dataset` section.
        train_cfg: only `head_empty_cls` and `amp` are used.
        test_cfg: settings of post-processing.
        options: the keys of `schema.SpotSection`.

    Raises:
        ValueError: `train_cfg.amp` is not "off", `train_cfg.soft_labels` is true, or an option is not valid.
    """

    def __init__(
        self,
        *,
        input_dim: int | list[int],
        num_classes: int,
        max_seq_len: int,
        train_cfg: TrainConfig,
        test_cfg: TestConfig,
        **options: Any,
    ) -> None:
        super().__init__()
        if train_cfg.get("amp", "off") != "off":
            raise ValueError(f"train_cfg.amp: '{train_cfg['amp']}': SPOT runs in 32 bits only; set it to 'off'")
        if train_cfg.get("soft_labels", False):
            raise ValueError(
                "train_cfg.soft_labels: true: SPOT's snippets have no segment to be compared with an event"
            )
        self.options = o = SpotSection.model_validate(options)
        self.input_dim = sum(input_dim) if isinstance(input_dim, (list, tuple)) else input_dim
        self.num_classes, self.num_steps = num_classes, max_seq_len
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        self.loss_normalizer = 1.0  # key of checkpoints, without effect: SPOT's losses are means
        embedding = SnippetEmbedding(
            input_dim=self.input_dim,
            embd_dim=o.embd_dim,
            kernel_size=o.embd_kernel_size,
            positions=o.positions,
            n_head=o.n_head,
            full_width_heads=o.full_width_heads,
            attn_dropout=o.attn_dropout,
            dropout=o.dropout,
            num_layers=o.embd_layers,
            feed_forward=o.feed_forward,
        )
        self.net = SpotNetwork(
            embedding=embedding,
            input_dim=self.input_dim,
            num_classes=num_classes,
            num_steps=max_seq_len,
            mask_dims=o.mask_dims,
            mask_head=o.mask_head,
            empty_cls=train_cfg.get("head_empty_cls", []),
            class_tower=o.class_tower,
            quality=o.quality,
        )

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, video_list: list[VideoItem]) -> dict[str, Tensor] | list[VideoDetections]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            video_list: items of the data set, see `VideoItem`.

        Returns:
            In training the scalars `cls_loss`, `mask_loss`, `refine_loss`, `recon_loss`, with a quality head
            `quality_loss`, and their weighted sum `final_loss`; else the detections of each video.
        """
        if self.training:
            (batch,) = self.batches(video_list)
            output = self.network(batch.feats, batch.mask)
            return self.losses(output, self.targets(batch, video_list), batch.clean)
        with torch.no_grad():
            pairs = ((batch, self.network(batch.feats, batch.mask)) for batch in self.batches(video_list))
            return self.detect(pairs, video_list)

    def batches(self, video_list: list[VideoItem]) -> list[SpotBatch]:
        """Batches of windows, padded to T: in training one batch with a row per video; else the windows of all videos,
        `window_batch` per batch.

        Raises:
            ValueError: a video has no step, a wrong number of channels, or in training more than `max_seq_len` steps.
        """
        rows: list[tuple[int, Window]] = []
        for i, video in enumerate(video_list):
            name, shape = video.get("video_id"), tuple(video["feats"].shape)
            if len(shape) != 2 or shape[0] != self.input_dim or shape[1] == 0:
                raise ValueError(f"video '{name}': features must be (input_dim={self.input_dim}, T > 0), found {shape}")
            if self.training and shape[1] > self.num_steps:
                raise ValueError(
                    f"video '{name}': {shape[1]} steps exceed max_seq_len={self.num_steps} in training; the data set "
                    f"crops to it"
                )
            rows += [(i, window) for window in windows(shape[1], self.num_steps, self.options.window_overlap)]
        size = len(rows) if self.training else self.options.window_batch
        return [self._batch(rows[k : k + size], video_list) for k in range(0, len(rows), size)]

    def _batch(self, rows: list[tuple[int, Window]], video_list: list[VideoItem]) -> SpotBatch:
        feats, clean = (torch.zeros(len(rows), self.input_dim, self.num_steps) for _ in range(2))
        for row, (i, (start, length)) in enumerate(rows):
            video = video_list[i]
            feats[row, :, :length] = video["feats"][:, start : start + length]
            clean[row, :, :length] = video.get("clean", video["feats"])[:, start : start + length]
        lengths = torch.tensor([window.length for _, window in rows])
        mask = torch.arange(self.num_steps)[None, None, :] < lengths[:, None, None]
        index, parts = [i for i, _ in rows], [window for _, window in rows]
        return SpotBatch(index, feats.to(self.device), clean.to(self.device), mask.to(self.device), parts)

    def network(self, feats: Tensor, mask: Tensor, lengths: Tensor | None = None) -> SpotOutput:
        """Features (B, D, T) and mask (B, 1, T) -> class logits, mask logits and embedding. `lengths` is not used."""
        return self.net(feats, mask[:, 0])

    def targets(self, batch: SpotBatch, video_list: list[VideoItem]) -> SpotTargets:
        """Supervised targets of the windows of a batch.

        Raises:
            ValueError: a label outside [0, num_classes); names the video.
        """
        segments, labels = [], []
        for i, window in zip(batch.index, batch.windows, strict=True):
            s, y = events_of(video_list[i], self.num_classes)
            segments.append(s.to(self.device) - window.start)
            labels.append(y.to(self.device))
        return assign_targets(
            segments,
            labels,
            [window.length for window in batch.windows],
            num_steps=self.num_steps,
            num_classes=self.num_classes,
        )

    def losses(self, output: SpotOutput, targets: SpotTargets, feats: Tensor) -> dict[str, Tensor]:
        """Scalar losses of labeled windows, see `forward`. `feats` (B, D, T): input of the network."""
        o = self.options.loss
        y, w = class_weights(targets.classes, output.mask, num_classes=self.num_classes, form=o.class_form)
        losses = {
            "cls_loss": class_loss(output.logits, y, w, focal_gamma=o.focal_gamma),
            "mask_loss": mask_loss(output.masks, targets.masks, output.mask, output.mask, bce=o.mask_bce),
        } | self.consistency_losses(output, feats)
        total = o.class_weight * losses["cls_loss"] + o.mask_weight * losses["mask_loss"]
        if output.quality is not None:
            losses["quality_loss"] = snippet_quality_loss(output.quality, output.masks, targets, output.mask)
            total = total + o.quality_weight * losses["quality_loss"]
        return distributed.parts_of_mean(losses | {"final_loss": total + self.weigh(losses)})

    def consistency_losses(self, output: SpotOutput, feats: Tensor) -> dict[str, Tensor]:
        """`refine_loss` and `recon_loss`, which need no labels; used for labeled and unlabeled windows."""
        o, nothing = self.options.loss, feats.new_zeros(())
        refine, recon = nothing, nothing
        if o.refine_weight:
            refine = refinement_loss(
                output,
                temperature=o.refine_temperature,
                num_easy=o.refine_easy,
                num_hard=o.refine_hard,
                radii=o.refine_radii,
            )
        if o.recon_weight:
            recon = reconstruction_loss(self.net.decoder(output.embedding), feats, output.mask)
        return {"refine_loss": refine, "recon_loss": recon}

    def weigh(self, losses: dict[str, Tensor]) -> Tensor:
        """Weighted sum of `refine_loss` and `recon_loss`."""
        o = self.options.loss
        return o.refine_weight * losses["refine_loss"] + o.recon_weight * losses["recon_loss"]

    def pretext(self, video_list: list[VideoItem], generator: torch.Generator) -> dict[str, Tensor]:
        """Scalar losses of the pretext tasks (`pretext.pretext_losses`), which need no labels."""
        (batch,) = self.batches(video_list)
        losses = pretext_losses(
            self.net,
            batch.feats,
            batch.mask[:, 0],
            options=self.options.pretext,
            bce=self.options.loss.mask_bce,
            generator=generator,
        )
        return distributed.parts_of_mean(losses)

    def candidates(self, output: SpotOutput, row: int, video: VideoItem) -> Candidates:
        """Candidates of the window in `row` of the batch, in grid steps of the window, before NMS, as `test_cfg` limits
        them. Raises what `decoded` raises."""
        return self.decoded(
            output,
            row,
            video,
            min_score=self.test_cfg["pre_nms_thresh"],
            max_candidates=self.test_cfg["pre_nms_topk"],
            min_length=self.test_cfg["duration_thresh"],
        )

    def decoded(self, output: SpotOutput, row: int, video: VideoItem, **limits: Any) -> Candidates:
        """Candidates of the window in `row` of the batch, in grid steps of the window, before NMS.

        Args:
            limits: see `decode.decode`.

        Raises:
            ValueError: the output is not finite; names the video.
        """
        length = int(output.mask[row].sum())  # valid snippets come first
        logits, masks = output.logits[row, :length].float(), output.masks[row, :length, :length].float()
        if not (torch.isfinite(logits).all() and torch.isfinite(masks).all()):
            raise ValueError(
                f"video '{video['video_id']}': the network's output is not finite: the weights have diverged, or the "
                f"features are bad"
            )
        factor = self.quality_factor(output)
        if factor is not None:
            limits["factor"] = factor[row, :length]
        return decode(logits.softmax(dim=-1), masks.sigmoid(), self.options.decode, **limits)

    def quality_factor(self, output: SpotOutput) -> Tensor | None:
        """Factors (B, T) of the scores of candidates; None if quality is not in the scores."""
        if output.quality is None or not self.test_cfg.get("quality_score", True):
            return None
        return predicted_factor(output.quality.float())

    def detect(
        self, outputs: Iterable[tuple[SpotBatch, SpotOutput]], video_list: list[VideoItem]
    ) -> list[VideoDetections]:
        """Detections of all videos, in seconds.

        Args:
            outputs: all batches of `video_list` in order, with the outputs of `network`.
        """
        parts: list[list[tuple[Window, Candidates]]] = [[] for _ in video_list]
        for batch, output in outputs:
            for row, (i, window) in enumerate(zip(batch.index, batch.windows, strict=True)):
                parts[i].append((window, self.candidates(output, row, video_list[i])))
        merged = [merge(video_parts) for video_parts in parts]
        return postprocess(merged, video_list, self.test_cfg)

"""The `model` section of `model_name: SPOT`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from libs.core.schema import Count, Fraction, NonNegative, Number, Positive, Section

Share = Annotated[Number, Field(ge=0, lt=1)]


class LossSection(Section):
    """Weights and forms of the losses. A weight of 0 switches a loss off."""

    class_form: Literal["target", "hybrid"] = "target"
    """Class loss on labeled snippets: cross-entropy of the target class (`target`, Eq. 5 of SPOT), or with all other
    classes as negatives in addition (`hybrid`)."""
    focal_gamma: NonNegative = 0.0
    """Multiplies the class loss l of a snippet by (1 - exp(-l))^gamma; 0: no focal factor."""
    class_weight: NonNegative = 1.0
    """Weight of the class loss."""
    mask_weight: NonNegative = 1.0
    """Weight of the mask loss."""
    mask_bce: Fraction = 0.4
    """Share of the cross-entropy in the mask loss (lambda_2); the rest is the dice loss."""
    refine_weight: NonNegative = 0.1
    """Weight of the boundary refinement loss; 1 in SPOT."""
    refine_temperature: Positive = 0.07
    """Temperature of the boundary refinement loss."""
    refine_easy: Count = 10
    """Largest number of snippets in a pool of confident action or confident background."""
    refine_hard: Count = 20
    """Largest number of snippets in a pool beside a boundary."""
    refine_radii: tuple[NonNegativeInt, Count] = (2, 4)
    """Snippets beside a boundary are more than the first and at most the second number of snippets away from it."""
    recon_weight: NonNegative = 1.0
    """Weight of the reconstruction loss."""
    quality_weight: NonNegative = 1.0
    """Weight of the loss of the quality head (`model.quality`)."""

    @model_validator(mode="after")
    def _check(self) -> LossSection:
        near, far = self.refine_radii
        if near >= far:
            raise ValueError(f"refine_radii {[near, far]}: expected near < far, such as [2, 4]")
        return self


class PretextSection(Section):
    """Weights and settings of the pretext tasks."""

    mask_weight: NonNegative = 1.0
    """Weight of the mask loss on random foreground."""
    recon_weight: NonNegative = 2.0
    """Weight of the reconstruction loss on dropped snippets."""
    order_weight: NonNegative = 1.0
    """Weight of the cross-entropy of predicting whether the halves of a window are swapped."""
    num_segments: Count = 2
    """Number of segments in the random foreground."""
    drop_ratio: Share = 0.2
    """Share of the snippets that are dropped."""


class PseudoSection(Section):
    """How the teacher's output becomes pseudo labels."""

    unit: Literal["snippets", "events"] = "snippets"
    """What is chosen: single snippets, by `threshold` and `mask_threshold`, as in SPOT (`snippets`); or detections in
    whole videos, as many of a class per minute as it has labeled events (`events`, with `labels: stored` only). Their
    snippets have their class and range; of the rest, background for the teacher is background, and other snippets teach
    nothing."""
    temperature: Positive = 1.0
    """Softmax temperature of the class distributions; below 1, they become sharper."""
    threshold: Fraction = 0.7
    """A snippet is used if its best action or the background has at least this probability."""
    mask_threshold: Fraction = 0.7
    """A snippet belongs to a pseudo mask if its mask probability is at least this."""
    class_weight: NonNegative = 1.0
    """Weight of the class loss on pseudo labels, in addition to `loss.class_weight`."""
    background_rows: bool = True
    """The mask loss also trains the rows of confident background snippets to be empty."""
    align: bool = True
    """Distribution alignment (Berthelot et al., 2020) between background and action: shifts the teacher's background
    logit so that the share of background among unlabeled snippets approaches that among labeled snippets."""


class DecodeSection(Section):
    """Thresholds and scores of decoding."""

    class_thresholds: list[Share] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    """Class probabilities above which a run of snippets becomes a candidate."""
    mask_thresholds: list[Share] = [0.0, 0.2, 0.4, 0.6, 0.8]
    """Mask probabilities above which a run of snippets in a row becomes a candidate."""
    snippet_threshold: Share = 0.02
    """A snippet proposes the classes whose probability is higher."""
    classes_per_snippet: Count = 3
    """Largest number of classes that a snippet proposes."""
    mask_score: Literal["iou", "mean"] = "iou"
    """Mask score of a candidate: mean of the mask over the run (`mean`), or sum over the run divided by the run's
    length plus the sum outside the run (`iou`)."""
    class_score: Literal["mean", "query"] = "mean"
    """Class score of a candidate from a run of a mask: mean class probability over the run (`mean`), or at the snippet
    that proposes the class (`query`)."""


class SpotSection(Section):
    """The section `model` of `model_name: SPOT`."""

    embd_dim: Count | None = None
    """Width of the input projection; `null`: no projection."""
    embd_kernel_size: Count = 3
    """Kernel size of the input projection, odd."""
    embd_layers: Count = 1
    """Number of convolutions of the input projection, each with LayerNorm and ReLU."""
    positions: bool = False
    """Adds a sinusoidal position encoding."""
    n_head: Count = 4
    """Number of attention heads."""
    full_width_heads: bool = False
    """Makes every head as wide as the embedding, as in SPOT (67M parameters at 2,048 channels)."""
    attn_dropout: Share = 0.1
    """Dropout rate of the attention weights."""
    dropout: Share = 0.3
    """Dropout rate of the output of the attention."""
    feed_forward: NonNegative = 0.0
    """Hidden width of a feed-forward part after the attention, as a multiple of the width; 0, as in SPOT: none."""
    class_tower: NonNegativeInt = 0
    """Number of convolutions of kernel size 3 before the class head, each with LayerNorm and ReLU; 0, as in SPOT: the
    class head is linear in the embedding."""
    quality: bool = False
    """A quality head: predicts for every snippet the tIoU of its mask with the event and the distance of the two
    centres. `test_cfg.quality_score` uses it."""
    mask_head: Literal["pairwise", "conv"] = "pairwise"
    """Mask of a snippet: depends on the snippet's content (`pairwise`), or only on its position in the window (`conv`,
    as in SPOT)."""
    mask_dims: Annotated[list[Count], Field(min_length=1)] = [256]
    """Widths of the mask head's hidden layers."""
    window_overlap: Share = 0.5
    """Smallest overlap of neighbouring windows, as a share of their length, which is `dataset.max_seq_len`."""
    window_batch: Count = 32
    """Windows per batch at inference."""
    loss: LossSection = LossSection()
    """Losses of training. A weight of 0 switches a loss off."""
    pretext: PretextSection = PretextSection()
    """Losses of the pretext tasks (`semi_cfg.pretrain`)."""
    pseudo: PseudoSection = PseudoSection()
    """How the teacher's output becomes pseudo labels."""
    decode: DecodeSection = DecodeSection()
    """Decoding of class and mask probabilities to segments."""

    @model_validator(mode="after")
    def _check(self) -> SpotSection:
        if self.embd_kernel_size % 2 == 0:
            raise ValueError(f"embd_kernel_size {self.embd_kernel_size} must be odd")
        if self.embd_dim is None and self.embd_layers > 1:
            raise ValueError(f"embd_layers {self.embd_layers}: without embd_dim there is no projection; expected 1")
        if self.embd_dim is not None and not self.full_width_heads and self.embd_dim % self.n_head:
            raise ValueError(
                f"embd_dim {self.embd_dim} must be divisible by n_head {self.n_head}, unless full_width_heads is true"
            )
        return self

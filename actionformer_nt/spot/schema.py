"""The `model` section of `model_name: SPOT`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from libs.core.schema import Count, Fraction, NonNegative, Number, Positive, Section

Share = Annotated[Number, Field(ge=0, lt=1)]


class LossSection(Section):
    """Weights and forms of the losses. A weight of 0 leaves the term out."""

    class_form: Literal["target", "hybrid"] = "target"
    """Class loss on labeled snippets: the target's term alone (`target`, Eq. 5), or all other classes as negatives too
    (`hybrid`)."""
    focal_gamma: NonNegative = 0.0
    """Multiplies the class loss l of a snippet by (1 - exp(-l))^gamma; 0 switches that off."""
    class_weight: NonNegative = 1.0
    """Weight of the class loss."""
    mask_weight: NonNegative = 1.0
    """Weight of the mask loss."""
    mask_bce: Fraction = 0.4
    """Share of the cross-entropy in the mask loss (lambda_2); the rest is the dice loss."""
    refine_weight: NonNegative = 0.1
    """Weight of the boundary refinement; SPOT has 1."""
    refine_temperature: Positive = 0.07
    """Temperature of the contrastive loss of the boundary refinement."""
    refine_easy: Count = 10
    """Most snippets in a pool of sure actions or sure background."""
    refine_hard: Count = 20
    """Most snippets in a pool beside a boundary."""
    refine_radii: tuple[NonNegativeInt, Count] = (2, 4)
    """Nearest and farthest distance from a boundary of the snippets beside it."""
    recon_weight: NonNegative = 1.0
    """Weight of the reconstruction of dropped snippets."""

    @model_validator(mode="after")
    def _check(self) -> LossSection:
        near, far = self.refine_radii
        if near >= far:
            raise ValueError(f"refine_radii {[near, far]}: expected near < far, such as [2, 4]")
        return self


class PretextSection(Section):
    """Weights of stage one."""

    mask_weight: NonNegative = 1.0
    """Weight of finding the random foreground."""
    recon_weight: NonNegative = 2.0
    """Weight of reconstructing dropped snippets."""
    order_weight: NonNegative = 1.0
    """Weight of telling whether the halves of a window are swapped."""
    num_segments: Count = 2
    """Segments of the random foreground."""
    drop_ratio: Share = 0.2
    """Share of the snippets that are dropped."""


class PseudoSection(Section):
    """How a teacher's output becomes pseudo labels."""

    temperature: Positive = 1.0
    """Class logits are divided by it; below 1 makes distributions surer."""
    threshold: Fraction = 0.7
    """A snippet is used if its best action or the background has this probability."""
    mask_threshold: Fraction = 0.7
    """Probability from which a snippet belongs to a mask."""
    class_weight: NonNegative = 1.0
    """Weight of the class loss on pseudo labels, times `loss.class_weight`."""
    background_rows: bool = True
    """The mask loss also learns empty rows, from sure background."""
    align: bool = True
    """Shifts the teacher's background logit until the share of background over unlabeled snippets is that over labeled
    ones (distribution alignment, Berthelot et al., 2020, between background and action only)."""


class DecodeSection(Section):
    """Thresholds of inference."""

    class_thresholds: list[Share] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    """Probabilities at which runs of a class become candidates."""
    mask_thresholds: list[Share] = [0.0, 0.2, 0.4, 0.6, 0.8]
    """Probabilities at which runs of a mask's row become candidates."""
    snippet_threshold: Share = 0.02
    """A snippet proposes classes that are more probable than this."""
    classes_per_snippet: Count = 3
    """The most classes that a snippet proposes."""
    mask_score: Literal["iou", "mean"] = "iou"
    """The mask's part of a candidate's score: its mean over the run (`mean`), or its sum over the run divided by the
    run's length plus its sum outside (`iou`)."""
    class_score: Literal["mean", "query"] = "mean"
    """The class's part, for runs of a mask: mean probability over the run (`mean`), or probability at the snippet that
    proposes the class (`query`)."""


class SpotSection(Section):
    """The section `model` of `model_name: SPOT`."""

    embd_dim: Count | None = None
    """Width of the input projection; `null`: no projection."""
    embd_kernel_size: Count = 3
    """Kernel size of the projection, odd."""
    positions: bool = False
    """Adds sinusoidal positions."""
    n_head: Count = 4
    """Attention heads."""
    full_width_heads: bool = False
    """Makes every head as wide as the embedding, as in SPOT (67M parameters at 2,048 channels)."""
    attn_dropout: Share = 0.1
    """Dropout of the attention weights."""
    dropout: Share = 0.3
    """Dropout of the attention's output."""
    mask_head: Literal["pairwise", "conv"] = "pairwise"
    """How the mask of a snippet is computed: from what the snippet shows (`pairwise`), or from its place in the window
    (`conv`, as in SPOT)."""
    mask_dims: Annotated[list[Count], Field(min_length=1)] = [256]
    """Widths of the mask head's hidden layers."""
    window_overlap: Share = 0.5
    """Overlap of the windows over a video longer than `dataset.max_seq_len`."""
    window_batch: Count = 32
    """Windows at a time at inference."""
    loss: LossSection = LossSection()
    """Losses of training. A weight of 0 leaves a loss out."""
    pretext: PretextSection = PretextSection()
    """Losses of the pretext tasks (`semi_cfg.pretrain`)."""
    pseudo: PseudoSection = PseudoSection()
    """From a teacher's output to pseudo labels."""
    decode: DecodeSection = DecodeSection()
    """From class and mask scores to segments."""

    @model_validator(mode="after")
    def _check(self) -> SpotSection:
        if self.embd_kernel_size % 2 == 0:
            raise ValueError(f"embd_kernel_size {self.embd_kernel_size} must be odd")
        if self.embd_dim is not None and not self.full_width_heads and self.embd_dim % self.n_head:
            raise ValueError(
                f"embd_dim {self.embd_dim} must be divisible by n_head {self.n_head}, unless full_width_heads is true"
            )
        return self

"""The `model` section of `model_name: SPOT`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, model_validator

from libs.core.schema import Count, Fraction, NonNegative, Number, Positive, Section

Share = Annotated[Number, Field(ge=0, lt=1)]


class LossSection(Section):
    """Weights and forms of the losses. A weight of 0 leaves the term out."""

    class_form: Literal["target", "hybrid"] = "target"  # labeled: Eq. 5, or with all other classes as negatives
    focal_gamma: NonNegative = 0.0  # the loss l of a snippet times (1 - exp(-l))^gamma; 0: off
    class_weight: NonNegative = 1.0
    mask_weight: NonNegative = 1.0
    mask_bce: Fraction = 0.4  # lambda_2: weight of the cross-entropy, the rest is dice's
    refine_weight: NonNegative = 0.1  # SPOT: 1
    refine_temperature: Positive = 0.07
    refine_easy: Count = 10  # snippets in a pool
    refine_hard: Count = 20
    refine_radii: tuple[NonNegativeInt, Count] = (2, 4)  # the ring on either side of a boundary, in snippets
    recon_weight: NonNegative = 1.0

    @model_validator(mode="after")
    def _check(self) -> LossSection:
        near, far = self.refine_radii
        if near >= far:
            raise ValueError(f"refine_radii {[near, far]}: expected near < far, such as [2, 4]")
        return self


class PretextSection(Section):
    """Weights of stage one."""

    mask_weight: NonNegative = 1.0
    recon_weight: NonNegative = 2.0
    order_weight: NonNegative = 1.0
    num_segments: Count = 2  # of the random foreground
    drop_ratio: Share = 0.2  # share of the snippets to reconstruct


class PseudoSection(Section):
    """How a teacher's output becomes pseudo labels."""

    temperature: Positive = 1.0  # class logits are divided by it; < 1 sharpens
    threshold: Fraction = 0.7  # of the best action's or the background's probability
    mask_threshold: Fraction = 0.7
    class_weight: NonNegative = 1.0  # of the class loss on pseudo labels, times loss.class_weight
    background_rows: bool = True  # the mask loss also learns empty rows, from confident background
    # Shifts the teacher's background logit until its share of background over the unlabeled snippets is that of the
    # labeled ones (distribution alignment, Berthelot et al., 2020, between background and action only).
    align: bool = True


class DecodeSection(Section):
    """Thresholds of inference."""

    class_thresholds: list[Share] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]  # runs of a class
    mask_thresholds: list[Share] = [0.0, 0.2, 0.4, 0.6, 0.8]  # runs of a mask's row
    snippet_threshold: Share = 0.02  # a snippet proposes the classes that are more probable
    classes_per_snippet: Count = 3  # at most so many
    mask_score: Literal["iou", "mean"] = "iou"
    class_score: Literal["mean", "query"] = "mean"


class SpotSection(Section):
    """The section `model` of `model_name: SPOT`."""

    embd_dim: Count | None = None  # width of the input projection; None: no projection
    embd_kernel_size: Count = 3  # of the projection
    positions: bool = False  # adds sinusoidal positions
    n_head: Count = 4
    full_width_heads: bool = False  # every head as wide as the embedding, as in SPOT (67M parameters at 2048)
    attn_dropout: Share = 0.1
    dropout: Share = 0.3
    mask_head: Literal["pairwise", "conv"] = "pairwise"  # see `network.MaskHead`; "conv" is SPOT's
    mask_dims: Annotated[list[Count], Field(min_length=1)] = [256]  # widths of the mask head's hidden layers
    window_overlap: Share = 0.5  # of windows over a video longer than max_seq_len
    window_batch: Count = 32  # windows at a time at inference
    loss: LossSection = LossSection()
    pretext: PretextSection = PretextSection()
    pseudo: PseudoSection = PseudoSection()
    decode: DecodeSection = DecodeSection()

    @model_validator(mode="after")
    def _check(self) -> SpotSection:
        if self.embd_kernel_size % 2 == 0:
            raise ValueError(f"embd_kernel_size {self.embd_kernel_size} must be odd")
        if self.embd_dim is not None and not self.full_width_heads and self.embd_dim % self.n_head:
            raise ValueError(
                f"embd_dim {self.embd_dim} must be divisible by n_head {self.n_head}, unless full_width_heads is true"
            )
        return self

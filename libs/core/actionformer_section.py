"""The schema of the `model` section of ActionFormer's architecture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import NonNegativeInt, model_validator

from .schema import Count, Number, Positive, Section


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
    quality: bool = False
    """Ours. A quality head: it predicts for every point the tIoU of its segment with the event and the distance of the
    two centres, divided by the length that both enclose (Zhou et al., ECCV 2024). `test_cfg.quality_score` uses it."""

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

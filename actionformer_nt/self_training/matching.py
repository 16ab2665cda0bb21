"""What methods beside pseudo labels see of a pyramid: points of two outputs at the same time, and features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from actionformer_nt.methods import Matched, Student
from actionformer_nt.pseudo_sections import PseudoSection
from libs.datasets.video import VideoItem
from libs.modeling.class_form import ClassForm
from libs.modeling.decode import offsets_to_segments
from libs.modeling.meta_archs import PyramidOutput, autocast

from .interface import inputs_of
from .pseudo_segments import Candidates, PointPseudo, PseudoSegments, mapped_back, supported
from .views import Geometry


def compare_pyramids(
    student: Any, teacher: Any, videos: list[VideoItem], views: list[VideoItem], geometries: list[Geometry], *,
    form: ClassForm,
) -> list[Matched]:  # fmt: skip
    """Outputs of the teacher on videos and, with gradient, of the student on views of them; see `match_pyramids`."""
    said: dict[int, tuple[PyramidOutput, int]] = {}
    with torch.no_grad():
        for batch in teacher.batches(videos):
            output = teacher.infer(batch)
            said |= {i: (output, row) for row, i in enumerate(batch.index)}
    own = student.outputs(views)
    return [match_pyramids(*said[i], own, i, geometry, form=form) for i, geometry in enumerate(geometries)]


def said_at(points: PointPseudo) -> Student:
    """What the student says at its points."""
    seen = torch.ones(len(points.probs), dtype=torch.bool, device=points.probs.device)
    return Student(probs=points.probs, seen=seen, segments=points.segments)


def said_of(
    proposals: PseudoSegments, found: Candidates, view: VideoItem, geometry: Geometry, options: PseudoSection
) -> Student:
    """What the student's candidates on a strong view say about the teacher's proposals."""
    device = proposals.segments.device  # stored pseudo labels are on the CPU
    found = found._replace(
        segments=found.segments.to(device), scores=found.scores.to(device), logits=found.logits.to(device)
    )
    moved = mapped_back(found, geometry, view["feats"].shape[1])
    return Student(**supported(proposals.segments, moved, options)._asdict())


@torch.no_grad()
def finest_class_features(model: Any, video: VideoItem) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of the last layer of the class head at the valid points of the finest level, (S, W), and their times."""
    (batch,) = model.batches([video])
    with inputs_of(model.cls_head.cls_head) as head_inputs:
        output = model.network(batch.feats, batch.mask, batch.lengths)
    valid = output.masks[0][0].cpu()
    finest = head_inputs[0][0, :, : len(valid)].T  # the packed sequence begins with the finest level
    return finest[valid].numpy(), output.points[0][:, 0].cpu()[valid].numpy()


def pyramid_features(model: Any, videos: list[VideoItem]) -> list[list[Tensor]]:
    """Features of the pyramid's levels at the valid points of each video, (S, W) per level, finest first."""
    found: dict[int, list[Tensor]] = {}
    for batch in model.batches(videos):
        with autocast(batch.feats.device, model.train_cfg.get("amp", "off")):
            feats, masks = model.neck(*model.backbone(batch.feats, batch.mask, batch.lengths))
        for row, i in enumerate(batch.index):
            found[i] = [x[row][:, m[row, 0]].T.float() for x, m in zip(feats, masks, strict=True)]
    return [found[i] for i in range(len(videos))]


def match_pyramids(
    teacher: PyramidOutput, teacher_row: int, student: PyramidOutput, row: int, geometry: Geometry, *, form: ClassForm
) -> Matched:
    """Outputs of the teacher on a video and of the student on a view of it.

    Each valid point of the teacher is matched with the student's nearest valid point of the same level, at most half a
    stride away. Places are distances of start and end to the teacher's point, in strides.

    Args:
        geometry: map of times in the video to times in its view.
    """
    levels = [
        _match_level(level, teacher, teacher_row, student, row, geometry, form) for level in range(len(student.points))
    ]
    return Matched(*(torch.cat(columns) for columns in zip(*levels, strict=True)))


def _match_level(
    level: int, teacher: PyramidOutput, teacher_row: int, student: PyramidOutput, row: int, geometry: Geometry,
    form: ClassForm,
) -> Matched:  # fmt: skip
    points, own = teacher.points[level], student.points[level]  # (T, 4) time, range and stride
    time, stride = points[:, 0], points[:, 3:4]
    moved = geometry(time.cpu()).to(time)
    distance, source = (
        (own[None, :, 0] - moved[:, None]).abs().masked_fill(~student.masks[level][row], torch.inf).min(1)
    )
    at = (teacher.masks[level][teacher_row] & (distance <= stride[:, 0] / 2)).nonzero()[:, 0]
    source = source[at]

    def places(segments: Tensor) -> Tensor:
        """Segments (n, 2) in steps of the video -> distances to the teacher's points."""
        return torch.stack([time[at] - segments[:, 0], segments[:, 1] - time[at]], dim=1) / stride[at]

    found = offsets_to_segments(own[source], student.offsets[level][row, source].float())
    found = geometry.inverse(found.flatten()).view(-1, 2)
    found = torch.stack([found.amin(dim=1), found.amax(dim=1)], dim=1)  # `flip` reverses time
    return Matched(
        form.scores(student.logits[level][row, source].float()),
        form.scores(teacher.logits[level][teacher_row, at].float()),
        places(found),
        places(offsets_to_segments(points[at], teacher.offsets[level][teacher_row, at].float())),
    )

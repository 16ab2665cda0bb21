"""Losses of methods that compare the student with the teacher on views of labeled and unlabeled videos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from actionformer_nt.methods import Matched, Method, Progress, Trunk
from actionformer_nt.pseudo_sections import ViewSection
from libs.core import distributed
from libs.datasets.video import VideoItem

from .interface import SelfTraining
from .setup import SemiRun
from .views import generator_of, labeled_view, view_of


def consistency_losses(
    run: SemiRun, iteration: int, labeled: Sequence[VideoItem], unlabeled: Sequence[VideoItem]
) -> dict[str, Tensor]:
    """Losses of `Method.consistency` and `Method.auxiliary`, with `labeled_` or `unlabeled_` before their names. The
    teacher sees weak views."""
    assert run.teacher is not None
    self_training = run.teacher.self_training
    method, since = run.teacher.method, iteration - run.stages.burn_in
    progress = Progress(since, since / run.stages.per_epoch)
    losses: dict[str, Tensor] = {}
    for name, videos in (("labeled", labeled), ("unlabeled", unlabeled)):
        weak = [
            labeled_view(video, "weak", run.semi.weak, run.seed, iteration, backwards=run.backwards)
            if name == "labeled"
            else view_of(video, "weak", run.semi.weak, run.seed, iteration)[0]
            for video in videos
        ]
        pairs = [
            compared(run, f"student {k}", ViewSection.model_validate(view), weak, iteration)
            for k, view in enumerate(method.student_views)
        ]
        found = method.consistency(pairs, labeled=name == "labeled", progress=progress) if pairs else {}
        trunk = trunk_of(run, self_training, videos, "auxiliary", iteration)
        seen = weak if name == "labeled" else without_labels(weak)
        further = method.auxiliary(seen, trunk, labeled=name == "labeled", progress=progress)
        if both := found.keys() & further.keys():
            raise ValueError(f"method {run.semi.method}: {sorted(both)} are names of two losses")
        found |= further
        losses |= {f"{name}_{key}": loss for key, loss in found.items()}
    return distributed.parts_of_mean(losses)


def pretext_losses(run: SemiRun, method: Method, iteration: int, videos: list[VideoItem]) -> dict[str, Tensor]:
    """Losses of `Method.pretext`."""
    assert run.teacher is not None
    trunk = trunk_of(run, run.teacher.self_training, videos, "pretext", iteration)
    return distributed.parts_of_mean(method.pretext(without_labels(videos), trunk))


def trunk_of(run: SemiRun, self_training: SelfTraining, videos: Sequence[VideoItem], use: str, iteration: int) -> Trunk:
    """The student's network up to its heads; `use` tells random numbers apart."""
    return Trunk(
        levels=partial(self_training.features, run.model),
        stride=self_training.feature_stride,
        modules=getattr(run.model, "method_modules", None),
        generators=[generator_of(video, use, run.seed, iteration) for video in videos],
    )


def without_labels(videos: Sequence[VideoItem]) -> list[VideoItem]:
    """The same videos without events."""
    return [{**video, "segments": None, "labels": None} for video in videos]


def compared(run: SemiRun, kind: str, options: ViewSection, weak: list[VideoItem], iteration: int) -> list[Matched]:
    """Outputs of teacher and student for a view of each weak view, with the classes of the weak view."""
    assert run.teacher is not None
    views = [view_of(video, kind, options, run.seed, iteration) for video in weak]
    geometries = [geometry for _, geometry in views]
    pairs = run.teacher.self_training.compare(
        run.model, run.teacher.network, weak, [view for view, _ in views], geometries
    )
    return [
        pair._replace(scores=pair.scores[:, run.backwards.to(pair.scores.device)]) if geometry.reverses else pair
        for pair, geometry in zip(pairs, geometries, strict=True)
    ]

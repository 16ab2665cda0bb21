"""Quality of pseudo segments, measured with hidden labels: counts of one iteration, and rates from summed counts.

Every count is a whole number (boundary errors are in whole milliseconds), so sums over iterations and processes are
exact in any order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from actionformer_nt.methods.label_space import partition
from actionformer_nt.protocol.hidden_labels import MATCH_IOU, HiddenLabels
from libs.datasets.video import VideoItem
from libs.modeling.losses import iou_matrix

from .pseudo_segments import PseudoSegments

NESTED_IOMIN = 0.5  # overlap divided by the length of the shorter segment, above which segments are nested
RANKS = {"rank_1": (1, 1), "rank_2": (2, 2), "rank_3": (3, 3), "rank_4_to_5": (4, 5), "rank_6_up": (6, 10**9)}
COUNTS = (
    "segments", "located", "duplicates", "nested", "correct", "wrong", "in_positive", "in_negative",
    "events", "missed", "start_ms", "end_ms", *RANKS,
)  # fmt: skip


def measure(
    hidden: HiddenLabels, videos: list[VideoItem], pseudo: list[PseudoSegments], lam: float
) -> dict[str, float]:
    """Counts for the quality of pseudo labels and for the paper's two observations (section III-B).

    Segments and hidden events are matched one to one, see `match_one_to_one`. Videos without known labels are left out.

    Args:
        videos: weak views; pseudo: pseudo segments per video.
        lam: lambda of the partition.

    Returns:
        `segments`: pseudo segments; `events`: hidden events; `located`: matched segments; `missed`: events without
        one; `duplicates`: segments without a match whose only matching events have another segment; `nested`: segments
        with an IoMin above .5 with another one of the video; `correct`, `wrong`: located segments whose target class
        is, or is not, that of the event; `in_positive`: wrong segments with the true class among the positive classes;
        `in_negative`: located segments with the true class among the negative classes; `rank_*`: located segments by
        the rank of the true class in the distribution, which is 1 for the target class; `start_ms`, `end_ms`: sums of
        |error| of the located segments' ends.
    """
    counts = dict.fromkeys(COUNTS, 0.0)
    for video, proposals in zip(videos, pseudo, strict=True):
        if video["video_id"] not in hidden.events:
            continue
        segments, probs = proposals.segments.cpu(), proposals.probs.cpu()
        events, labels = hidden.of(video)
        iou = iou_matrix(segments, events.to(segments))  # (N, M)
        match = match_one_to_one(iou, proposals.scores.cpu(), probs.argmax(dim=-1), labels)
        located = match >= 0
        counts["segments"] += len(match)
        counts["events"] += len(labels)
        counts["located"] += int(located.sum())
        counts["missed"] += len(labels) - int(located.sum())
        counts["duplicates"] += int(((iou >= MATCH_IOU).any(dim=1) & ~located).sum())
        counts["nested"] += int(nested(segments).sum())
        if located.any():
            errors = (segments[located] - events[match[located]]).abs().double()  # (L, 2) grid steps
            errors = (errors * (1000 * video["feat_stride"] / video["fps"])).round().sum(dim=0)
            counts["start_ms"] += float(errors[0])
            counts["end_ms"] += float(errors[1])
            for name, value in _count_classes(probs[located], labels[match[located]], lam).items():
                counts[name] += value
    return counts


def match_one_to_one(iou: Tensor, scores: Tensor, predicted: Tensor, labels: Tensor) -> Tensor:
    """Matches segments to events: by falling score, every segment takes the free event with the largest IoU.

    Between events of equal IoU, such as one interval with two classes, it takes one of its own class.

    Args:
        iou: (N, M) of segments and events.
        scores, predicted: (N,) scores and classes of the segments; labels: (M,) of the events.

    Returns:
        (N,) index of the event, -1 where no free event has an IoU of at least `MATCH_IOU`.
    """
    match, free = torch.full((len(scores),), -1), torch.ones(len(labels), dtype=torch.bool)
    for n in scores.argsort(descending=True, stable=True).tolist():
        candidates = free & (iou[n] >= MATCH_IOU)
        if candidates.any():
            best = candidates & (iou[n] == iou[n][candidates].max())
            own = best & (labels == predicted[n])
            match[n] = int((own if own.any() else best).nonzero()[0, 0])
            free[match[n]] = False
    return match


def nested(segments: Tensor) -> Tensor:
    """(N,) whether a segment and another one share more than half of the shorter one's length."""
    start, end = segments[:, 0], segments[:, 1]
    overlap = torch.minimum(end[:, None], end[None]) - torch.maximum(start[:, None], start[None])
    shorter = torch.minimum((end - start)[:, None], (end - start)[None])
    return ((overlap > NESTED_IOMIN * shorter) & (overlap > 0)).fill_diagonal_(False).any(dim=1)


def _count_classes(probs: Tensor, truth: Tensor, lam: float) -> dict[str, int]:
    """Counts of where the true classes (L,) are in the distributions (L, C) of located segments."""
    parts, index = partition(probs, lam), truth[:, None]
    correct = parts.target.gather(1, index)[:, 0]
    ahead = (probs > probs.gather(1, index)).sum(dim=1)
    rank = torch.where(correct, 1, (ahead + 1).clamp(min=2))  # of equal probabilities the target class comes first
    counts = {name: int(((rank >= low) & (rank <= high)).sum()) for name, (low, high) in RANKS.items()}
    return counts | {
        "correct": int(correct.sum()),
        "wrong": int((~correct).sum()),
        "in_positive": int((parts.positive.gather(1, index)[:, 0] & ~correct).sum()),
        "in_negative": int(parts.negative.gather(1, index).sum()),
    }


def rates(counts: Mapping[str, float]) -> dict[str, float]:
    """Curves `hidden/*` from the summed counts of `measure`; a rate with denominator 0 is left out.

    `precision`, `located`, `duplicates` and `nested` are shares of the pseudo segments; `recall` and `missed` of the
    hidden events; `start_error` and `end_error` are means over the located segments in seconds; all others are shares
    of the located segments. `segments` and `events` are the counts; without either there is no curve at all.
    """
    pairs = {
        "precision": ("correct", "segments"),
        "located": ("located", "segments"),
        "duplicates": ("duplicates", "segments"),
        "nested": ("nested", "segments"),
        "recall": ("correct", "events"),
        "missed": ("missed", "events"),
        "target_accuracy": ("correct", "located"),
        "truth_among_positives_when_wrong": ("in_positive", "wrong"),
        "truth_among_negatives": ("in_negative", "located"),
        **{name: (name, "located") for name in RANKS},
    }
    values = {f"hidden/{name}": counts[a] / counts[b] for name, (a, b) in pairs.items() if counts.get(b)}
    if counts.get("located"):
        for name in ("start", "end"):
            values[f"hidden/{name}_error"] = counts[f"{name}_ms"] / counts["located"] / 1000
    if counts.get("segments") or counts.get("events"):
        values |= {f"hidden/{name}": counts[name] for name in ("segments", "events")}
    return values

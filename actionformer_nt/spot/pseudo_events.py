"""SPOT's pseudo labels from the teacher's detections in whole videos (`model.pseudo.unit: events`).

A snippet alone says little about where an event begins and ends. A detection does, and detections can be chosen so that
each class has as many of them per minute as labeled events, as with `semi_cfg.pseudo.select: rate`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from actionformer_nt.self_training.selection import rate_thresholds
from libs.modeling.decode import Candidates
from libs.nms.suppress import nms_videos

from .targets import owners, quantise, rank_of
from .whole_videos import WholeVideo

NMS_IOU = 0.5  # tIoU from which a detection suppresses a worse one of any class
PER_WINDOW = 100  # detections that remain after NMS
FLOOR = 0.1  # smallest score


class Events(NamedTuple):
    """Detections in a video of L snippets, by falling score."""

    ranges: Tensor  # (N, 2) long, half-open ranges of snippets
    scores: Tensor  # (N,)
    probs: Tensor  # (N, C) distributions over the actions: the mean over the range, given that it is an action


class FoundVideo(NamedTuple):
    """What the teacher finds in a video."""

    labels: WholeVideo  # of the snippets
    events: Events
    minutes: float


def events_of(candidates: Candidates, labels: WholeVideo) -> Events:
    """Candidates of a whole video after class-agnostic hard NMS."""
    length = labels.probs.shape[1]
    most = PER_WINDOW * max(-(-length // labels.masks.shape[1]), 1)
    ((segments, scores, _),) = nms_videos(
        [candidates], iou_threshold=NMS_IOU, min_score=FLOOR, max_seg_num=most, method="hard", multiclass=False
    )
    ranges, on_grid = quantise(segments, length)
    ranges, scores = ranges[on_grid], scores[on_grid]
    total = torch.nn.functional.pad(labels.probs[0, :, :-1].double().cumsum(dim=0), (0, 0, 1, 0))  # (L + 1, C)
    probs = total[ranges[:, 1]] - total[ranges[:, 0]]
    return Events(ranges, scores, (probs / probs.sum(dim=1, keepdim=True).clamp(min=1e-12)).to(labels.probs))


def choose(found: list[FoundVideo], rates: Tensor) -> list[WholeVideo]:
    """Pseudo labels of videos that are all known, from the detections at the labeled rate of every class.

    Args:
        rates: (C,) labeled events per minute.
    """
    scores, classes = [torch.zeros(0)], [torch.zeros(0, dtype=torch.long)]
    for video in found:
        scores.append(video.events.scores)
        classes.append(video.events.probs.argmax(dim=1))
    minutes = sum(video.minutes for video in found)
    thresholds = rate_thresholds(torch.cat(scores), torch.cat(classes), minutes, rates, floor=FLOOR)
    chosen = []
    for video in found:
        events = video.events
        keep = events.scores >= thresholds[events.probs.argmax(dim=1)]
        chosen.append(relabel(video.labels, Events(*(column[keep] for column in events))))
    return chosen


def relabel(labels: WholeVideo, events: Events) -> WholeVideo:
    """Pseudo labels of a video in which each snippet of an event has the event's distribution and range.

    The owner of a snippet is the shortest event that covers it, as with labeled events. Of the other snippets, those
    that are background for the teacher are background, and the rest teaches nothing.
    """
    length, width = labels.masks.shape
    background = labels.probs[0].argmax(dim=1) == labels.probs.shape[2] - 1  # (L,)
    if not len(events.scores):
        return labels._replace(
            confident=background[None], masks=torch.zeros_like(labels.masks), mask_rows=background[None]
        )
    step = torch.arange(length)
    inside = (step >= events.ranges[:, :1]) & (step < events.ranges[:, 1:])  # (N, L)
    owner, owned = owners(inside, rank_of(events.ranges, events.probs.argmax(dim=1)))
    probs = torch.where(owned[:, None], torch.nn.functional.pad(events.probs, (0, 1))[owner], labels.probs[0])
    column = labels.starts[:, None] + torch.arange(width)  # (L, T) snippets of the window
    begin, end = events.ranges[owner].unbind(1)
    masks = owned[:, None] & (column >= begin[:, None]) & (column < end[:, None])
    known = owned | background
    return labels._replace(probs=probs[None], confident=known[None], masks=masks, mask_rows=known[None])

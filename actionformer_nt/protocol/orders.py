"""The order in which the videos of a fold receive labels."""

from __future__ import annotations

import random
from collections.abc import Sequence

from libs.datasets.annotations import Video


def uniform_order(videos: Sequence[Video], count: int, rng: random.Random) -> list[str]:
    """Ids of `count` videos, drawn without replacement."""
    return rng.sample([video.id for video in videos], count)


def stratified_order(videos: Sequence[Video], count: int, rng: random.Random) -> list[str]:
    """Ids of `count` videos, drawn so that the next video is always one of the class with the smallest labeled share.
    Videos without events count as one class."""
    members: dict[int, list[str]] = {}  # class -> ids of its videos, shuffled; -1: videos without events
    classes: dict[str, set[int]] = {}
    for video in videos:
        classes[video.id] = {event.label_id for event in video.events} or {-1}
        for label in classes[video.id]:
            members.setdefault(label, []).append(video.id)
    total = {label: len(ids) for label, ids in members.items()}
    for label in sorted(members):
        rng.shuffle(members[label])
    taken = dict.fromkeys(sorted(members), 0)
    tie = {label: rng.random() for label in taken}
    order: list[str] = []
    chosen: set[str] = set()
    while len(order) < count:
        open_classes = [label for label in taken if taken[label] < total[label]]
        label = min(open_classes, key=lambda c: (taken[c] / total[c] if taken[c] else -1.0, tie[c]))
        name = next(v for v in members[label] if v not in chosen)
        members[label] = members[label][members[label].index(name) + 1 :]
        order.append(name)
        chosen.add(name)
        for other in classes[name]:
            taken[other] += 1
    return order

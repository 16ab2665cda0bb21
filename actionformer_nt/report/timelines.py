"""Data of the timeline browser: ground truth and rows of detections of the same videos."""

from __future__ import annotations

from collections import defaultdict

from libs.datasets.annotations import Annotations
from libs.datasets.labels import names_of
from libs.evaluation.detections import Detections


class Timelines:
    """The videos of one subset.

    Args:
        truth: annotations of the videos; None: unknown or hidden.
        subset: name of the subset.
    """

    def __init__(self, truth: Annotations | None, *, subset: str) -> None:
        self.subset = subset
        self.rows: list[str] = []
        self.earlier = 0  # number of first rows that a later row supersedes
        # video -> row -> flat list of start, end, label, score of each bar
        self.bars: dict[str, dict[str, list[float]]] = defaultdict(dict)
        self.durations: dict[str, float | None] = {}
        self.names: dict[int, str] = {}
        self.truth: dict[str, list[float]] | None = None
        if truth is not None:
            self.names |= names_of(truth.label_ids)
            self.durations |= {video.id: video.duration for video in truth.videos}
            self.truth = {v.id: [x for e in v.events for x in _bar(e.start, e.end, e.label_id)] for v in truth.videos}

    def add(self, row: str, detections: Detections, names: dict[int, str]) -> None:
        """Adds a row of detections. `row`: title; `names`: class id -> name."""
        self.rows.append(row)
        self.names = names | self.names
        columns = zip(*(column.tolist() for column in detections), strict=True)
        for video, start, end, label, score in columns:
            self.bars[video].setdefault(row, []).extend((*_bar(start, end, label), round(score, 4)))

    def content(self, count: int) -> dict[str, object]:
        """The content for the page, with at most `count` videos, evenly chosen."""
        ids = sorted(self.durations.keys() | self.bars.keys())
        chosen = ids if len(ids) <= count else [ids[k * len(ids) // count] for k in range(count)]
        return {
            "subset": self.subset,
            "rows": self.rows,
            "earlier": self.earlier,
            "names": self.names,
            "total": len(ids),
            "videos": [
                {
                    "id": i,
                    "duration": self.durations.get(i),
                    "truth": None if self.truth is None else self.truth.get(i, []),
                    "bars": [self.bars.get(i, {}).get(row, []) for row in self.rows],
                }
                for i in chosen
            ],
        }


def _bar(start: float, end: float, label: int) -> tuple[float, float, int]:
    return round(start, 2), round(end, 2), label

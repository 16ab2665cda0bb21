"""What segments look like as a whole (how many, of which classes, how much of the time), and the range of the labels.

Pseudo segments and labeled events go through the same functions. A labeled recording that is longer than a training
sample is seen through windows of a sample's length, half a window apart, which together count as one video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from libs.datasets.dataset import TALDataset

NEARLY_ALL = 0.9  # share of a video's time from which on one segment, or one class, fills it
MORE = 3.0  # factor by which rates and times may be higher than in any labeled recording
FEWER = 10.0  # factor by which they may be lower: pseudo labels are a selection
KEPT = 0.25  # part of a labeled share that must be left
FILLED = 0.1  # share of the videos that one segment or one class may fill where no labeled video is filled
FEW_EVENTS = 5  # a class with fewer labeled events has no range of its own for its events per minute
FEW_SEGMENTS = 20  # pseudo segments below which shares of classes are not judged
TOLERANCE = 1e-9  # of rounding, in comparisons
FEW_AT_BOUND = 3  # the rate of a class is judged where the bound amounts to at least as many segments

RATE, CLASS_RATE, TIME, COVERAGE = "events_per_minute", "class_events_per_minute", "time_share", "coverage"
CLASS_SHARE, CLASS_TIME, ONE_SEGMENT, ONE_CLASS = "class_share", "class_time", "one_segment", "one_class"


class View(NamedTuple):
    """The segments of one video, or of the part of it that is seen."""

    seconds: float  # length of the video
    counts: dict[int, int]  # class -> number of segments
    times: dict[int, float]  # class -> seconds within its segments
    covered: float  # seconds within any segment
    longest: float  # seconds of the longest segment


def view_of_segments(
    segments: Sequence[Sequence[float]], labels: Sequence[int], *, start: float, steps: int, step_seconds: float
) -> View:
    """What is seen of segments in `steps` grid steps from step `start` on; a step reaches half a step to either side.

    Args:
        segments: (N, 2) start and end in grid steps; what lies outside is cut off.
        labels: (N,) classes.
        step_seconds: seconds from one step to the next.
    """
    low, high = start - 0.5, start + steps - 0.5
    by_class: dict[int, list[tuple[float, float]]] = {}
    for (begin, end), label in zip(segments, labels, strict=True):
        if min(end, high) > max(begin, low):
            by_class.setdefault(label, []).append((max(begin, low), min(end, high)))
    every = [segment for parts in by_class.values() for segment in parts]
    return View(
        seconds=steps * step_seconds,
        counts={c: len(parts) for c, parts in sorted(by_class.items())},
        times={c: step_seconds * length_of_union(parts) for c, parts in sorted(by_class.items())},
        covered=step_seconds * length_of_union(every),
        longest=step_seconds * max((end - begin for begin, end in every), default=0.0),
    )


def length_of_union(segments: Iterable[tuple[float, float]]) -> float:
    """Length of the union of segments (start, end)."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(segments):
        total += max(end - max(begin, reached), 0.0)
        reached = max(reached, end)
    return total


@dataclass
class Totals:
    """Sums over videos."""

    views: float = 0.0
    seconds: float = 0.0
    covered: float = 0.0
    with_segment: float = 0.0  # videos with at least one segment
    one_segment: float = 0.0  # videos that one segment fills
    one_class: float = 0.0  # videos that one class fills
    counts: dict[int, float] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)

    def add(self, view: View, weight: float = 1.0) -> None:
        """Adds a video; `weight`: as which part of a video it counts."""
        self.views += weight
        self.seconds += weight * view.seconds
        self.covered += weight * view.covered
        self.with_segment += weight * bool(view.counts)
        self.one_segment += weight * (view.longest > NEARLY_ALL * view.seconds)
        self.one_class += weight * (max(view.times.values(), default=0.0) > NEARLY_ALL * view.seconds)
        for c, count in view.counts.items():
            self.counts[c] = self.counts.get(c, 0.0) + weight * count
            self.times[c] = self.times.get(c, 0.0) + weight * view.times[c]

    @property
    def segments(self) -> float:
        return sum(self.counts.values())

    @property
    def minutes(self) -> float:
        return self.seconds / 60

    def rate(self, label: int | None = None) -> float:
        """Segments per minute, of one class or of all."""
        return (self.segments if label is None else self.counts.get(label, 0.0)) / self.minutes

    def shares(self, name: str) -> dict[int, float]:
        """Class -> its share of the segments (`CLASS_SHARE`), or of the time within segments (`CLASS_TIME`)."""
        values = self.counts if name == CLASS_SHARE else self.times
        total = sum(values.values())
        return {c: value / total for c, value in values.items()} if total else {}


def total_of(views: Sequence[View], *, weight: float = 1.0) -> Totals:
    totals = Totals()
    for view in views:
        totals.add(view, weight)
    return totals


class Finding(NamedTuple):
    """One quantity of pseudo labels beside the labeled videos."""

    name: str
    label: int | None  # the class, of a quantity of one class
    found: float
    low: float
    high: float
    labeled: tuple[float, float]  # smallest and largest labeled recording, or twice the value of all labeled ones

    @property
    def outside(self) -> bool:
        return not self.low - TOLERANCE <= self.found <= self.high + TOLERANCE


class LabeledRange:
    """The range of the labeled recordings.

    * `events_per_minute`, of all classes and of each class with at least `FEW_EVENTS` events: from the smallest value
      of a recording divided by `FEWER` to the largest times `MORE`.
    * `time_share`: the same, and of the labeled time outside events at least the part `KEPT` is left.
    * `coverage`: at least the part `KEPT` of the labeled one.
    * `class_share`, `class_time`: the other classes together keep at least the part `KEPT` of their labeled share.
    * `one_segment`, `one_class`: at most the larger of `FILLED` and `MORE` times the labeled share of videos that are
      filled; of the labeled share of the other videos at least the part `KEPT` is left.

    Args:
        recordings: views of each recording.
        events: class -> number of labeled events.
    """

    def __init__(self, recordings: Sequence[Sequence[View]], events: Mapping[int, int]) -> None:
        self.events, self.recordings = events, [total_of(views, weight=1 / len(views)) for views in recordings]
        self.all = Totals()
        for views in recordings:
            for view in views:
                self.all.add(view, 1 / len(views))

    @classmethod
    def of(cls, labeled: TALDataset) -> LabeledRange:
        """The range of labeled training videos, through windows as long as a training sample."""
        recordings, events = [], Counter[int]()
        for i, video in enumerate(labeled.videos):
            grid, (segments, labels) = labeled.grid(i), labeled.events(i)
            fps = video.fps if labeled.default_fps is None else labeled.default_fps
            assert fps is not None  # checked when the data set was made
            events.update(labels.tolist())
            recordings.append([
                view_of_segments(
                    segments.tolist(), labels.tolist(), start=start, steps=min(grid.length, labeled.max_seq_len),
                    step_seconds=grid.stride / fps,
                )
                for start in window_starts(grid.length, labeled.max_seq_len)
            ])  # fmt: skip
        return cls(recordings, events)

    def judge(self, pseudo: Totals) -> list[Finding]:
        """Compares pseudo segments with the range; a quantity that they do not define is left out."""
        rates, times = ([f(r) for r in self.recordings] for f in (Totals.rate, lambda r: r.covered / r.seconds))
        labeled = {
            name: getattr(self.all, total) / self.all.views
            for name, total in ((COVERAGE, "with_segment"), (ONE_SEGMENT, ONE_SEGMENT), (ONE_CLASS, ONE_CLASS))
        }
        top = min(MORE * max(times), _most(max(times)))
        findings = [
            Finding(RATE, None, pseudo.rate(), min(rates) / FEWER, MORE * max(rates), (min(rates), max(rates))),
            Finding(
                COVERAGE, None, pseudo.with_segment / pseudo.views, KEPT * labeled[COVERAGE], 1.0,
                (labeled[COVERAGE], labeled[COVERAGE]),
            ),
            Finding(
                TIME, None, pseudo.covered / pseudo.seconds, min(times) / FEWER, top, (min(times), max(times))
            ),
        ]  # fmt: skip
        for name in (ONE_SEGMENT, ONE_CLASS):
            share = labeled[name]
            high = min(max(FILLED, MORE * share), _most(share))
            findings.append(Finding(name, None, getattr(pseudo, name) / pseudo.views, 0.0, high, (share, share)))
        for name in (CLASS_SHARE, CLASS_TIME):
            if pseudo.segments >= FEW_SEGMENTS:
                findings.append(max(self.class_shares(name, pseudo), key=lambda f: (f.found - f.high, -(f.label or 0))))
        return findings + self.class_rates(pseudo)

    def class_shares(self, name: str, pseudo: Totals) -> list[Finding]:
        """A finding for every class of the pseudo segments."""
        labeled = self.all.shares(name)
        return [
            Finding(name, c, share, 0.0, _most(labeled.get(c, 0.0)), (labeled.get(c, 0.0), labeled.get(c, 0.0)))
            for c, share in sorted(pseudo.shares(name).items())
        ]

    def class_rates(self, pseudo: Totals) -> list[Finding]:
        """A finding for every class with enough labeled events; a bound of too few segments is left open."""
        findings = []
        for c in sorted(c for c, count in self.events.items() if count >= FEW_EVENTS):
            rates = [recording.rate(c) for recording in self.recordings]
            low, high = min(rates) / FEWER, MORE * max(rates)
            low = low if low * pseudo.minutes >= FEW_AT_BOUND else 0.0
            high = high if high * pseudo.minutes >= FEW_AT_BOUND else float("inf")
            findings.append(Finding(CLASS_RATE, c, pseudo.rate(c), low, high, (min(rates), max(rates))))
        return findings


def window_starts(length: int, window: int) -> list[int]:
    """Starts of windows half a window apart that together cover `length` steps."""
    return [0] if length <= window else [*range(0, length - window, max(window // 2, 1)), length - window]


def _most(share: float) -> float:
    """How large a labeled share may become so that the part `KEPT` of the rest is left."""
    return 1 - KEPT * (1 - share)

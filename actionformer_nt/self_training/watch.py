"""The watch over self-training: compares the pseudo labels with the labeled videos, without hidden labels."""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import TypedDict

from typing_extensions import NotRequired

from actionformer_nt.config import WatchSection, semi_section
from libs.core import distributed
from libs.core.files import write_text
from libs.core.types import Config
from libs.datasets.dataset import TALDataset
from libs.datasets.labels import names_of
from libs.datasets.video import VideoItem
from libs.training.run_folder import WATCH

from .pseudo_segments import PseudoSegments
from .watch_advice import Advice, advice_of
from .watch_ranges import (
    CLASS_RATE,
    CLASS_SHARE,
    CLASS_TIME,
    COVERAGE,
    ONE_CLASS,
    ONE_SEGMENT,
    RATE,
    TIME,
    Finding,
    LabeledRange,
    Totals,
    View,
    total_of,
    view_of_segments,
)

logger = logging.getLogger(__name__)

WHAT = {
    RATE: "pseudo segments per minute",
    CLASS_RATE: "pseudo segments of the class per minute",
    COVERAGE: "share of videos with a pseudo segment",
    TIME: "share of time within pseudo segments",
    CLASS_SHARE: "share of one class in the pseudo segments",
    CLASS_TIME: "share of one class in the time within pseudo segments",
    ONE_SEGMENT: "share of videos that a single pseudo segment fills",
    ONE_CLASS: "share of videos that a single class fills",
}
NAMED = 5  # classes that a warning names


class CollapseError(RuntimeError):
    """Pseudo labels are outside the labeled range, and `semi_cfg.on_collapse` is `stop`."""


class Warned(TypedDict):
    """A warning of the watch."""

    iteration: int
    quantity: str
    message: str


class WatchState(TypedDict):
    """State of a watch for exact resuming, the same in all processes."""

    views: list[tuple[int, int, tuple]]  # iteration, position in the batch and fields of `View`, in this order
    warnings: list[Warned]
    fault: NotRequired[str | None]  # why the run should end; absent in earlier versions


class Watch:
    """Compares the pseudo labels of the last unlabeled videos with the labeled range, see `LabeledRange`.

    All processes find the same: views are gathered, and put into the order that one process would have.

    Args:
        options: `semi_cfg.watch`, with `videos` > 0.
        stop: whether a quantity outside is an `error`.
        labeled: makes the labeled range; called once, at the first comparison.
        names: class id -> name.
        advice: quantity -> what to do if it is outside.
    """

    def __init__(
        self,
        options: WatchSection,
        *,
        stop: bool,
        labeled: Callable[[], LabeledRange],
        names: Mapping[int, str],
        advice: Mapping[str, Advice],
    ) -> None:
        self.options, self.stop, self.names, self.advice = options, stop, names, advice
        self._make_range = labeled
        self._range: LabeledRange | None = None
        self.views: deque[tuple[int, int, View]] = deque(maxlen=options.videos)  # of this process
        self.warnings: list[Warned] = []
        self.fault: str | None = None  # why the run should end

    @property
    def range(self) -> LabeledRange:
        """The labeled range."""
        if self._range is None:
            self._range = self._make_range()
        return self._range

    def add(self, iteration: int, videos: list[VideoItem], pseudo: list[PseudoSegments]) -> None:
        """Adds the pseudo segments of one iteration. `videos`: this process's weak views."""
        for row, (video, found) in enumerate(zip(videos, pseudo, strict=True)):
            view = view_of_segments(
                found.segments.tolist(), found.logits.argmax(dim=-1).tolist(), start=0.0,
                steps=video["feats"].shape[1], step_seconds=video["feat_stride"] / video["fps"],
            )  # fmt: skip
            self.views.append((iteration, row * distributed.world_size() + distributed.rank(), view))

    def clear(self) -> None:
        """Forgets the views and what was found in them: the next ones come from another teacher."""
        self.views.clear()
        self.fault = None

    def window(self) -> list[tuple[int, int, View]]:
        """The last `videos` views of all processes, oldest first."""
        views = [view for part in distributed.gather(list(self.views)) for view in part]
        return sorted(views, key=lambda view: view[:2])[-self.options.videos :]

    def look(self, iteration: int, folder: Path) -> dict[str, float]:
        """Compares, warns, and writes `WATCH` into the run folder.

        Once `videos` views were seen, a quantity outside its range gives a warning, unless it gave one less than
        `every` iterations ago.

        Returns:
            Values of the curves `watch/*`; none before the first view.
        """
        self.fault = None
        views = [view for _, _, view in self.window()]
        if not views:
            return {}
        pseudo = total_of(views)
        findings = self.range.judge(pseudo)
        outside = [finding for finding in findings if finding.outside]
        if len(views) == self.options.videos:
            for name, group in groupby(outside, key=lambda finding: finding.name):
                self._warn(name, list(group), iteration)
        write_text(folder / WATCH, json.dumps(self.content(iteration, pseudo, len(views), findings), allow_nan=False))
        values = {f"watch/{finding.name}": finding.found for finding in findings if finding.name != CLASS_RATE}
        return values | {"watch/outside": float(len({finding.name for finding in outside}))}

    def _warn(self, name: str, findings: list[Finding], iteration: int) -> None:
        message = self.message(name, findings)
        self.fault = self.fault or message
        last = max((w["iteration"] for w in self.warnings if w["quantity"] == name), default=-math.inf)
        if iteration - last >= self.options.every:
            self.warnings.append({"iteration": iteration, "quantity": name, "message": message})
            logger.warning("iteration %d: watch: %s", iteration, message)

    def message(self, name: str, findings: list[Finding]) -> str:
        """What is outside, by how much, and what to do. `findings`: those of one quantity that are outside."""
        parts = []
        for f in findings[:NAMED]:
            of = "" if f.label is None else f" ({self.names.get(f.label, f.label)})"
            labeled = " to ".join(dict.fromkeys(map(_short, f.labeled)))
            parts.append(f"{_short(f.found)}{of}, where the labeled videos have {labeled} and {_bounds(f)} is expected")
        more = f"; and of {len(findings) - NAMED} more classes" if len(findings) > NAMED else ""
        known = self.advice[name]
        advice = " / ".join(
            dict.fromkeys(a for f in findings if (a := known.below if f.found < f.low else known.above))
        )
        return f"{WHAT[name]}: {'; '.join(parts)}{more}. What to do: {advice}"

    @property
    def error(self) -> CollapseError | None:
        """Why the run should end: the last `look` found a quantity outside, and `stop` is true."""
        if not self.stop or self.fault is None:
            return None
        return CollapseError(
            f"semi_cfg.on_collapse is stop, and the pseudo labels have left the labeled range: {self.fault}"
        )

    def content(self, iteration: int, pseudo: Totals, views: int, findings: list[Finding]) -> dict[str, object]:
        """Content of `WATCH`: the comparison for the report."""
        labeled, shares = self.range.all, pseudo.shares(CLASS_SHARE)
        labeled_shares = labeled.shares(CLASS_SHARE)
        return {
            "iteration": iteration,
            "videos": views,
            "of": self.options.videos,
            "recordings": len(self.range.recordings),
            "quantities": [
                {
                    "name": f.name, "what": WHAT[f.name],
                    "class": None if f.label is None else self.names.get(f.label, str(f.label)),
                    "found": f.found, "labeled": f.labeled, "low": f.low,
                    "high": f.high if math.isfinite(f.high) else None, "outside": f.outside,
                }
                for f in findings
            ],
            "classes": [
                {
                    "name": self.names.get(c, str(c)), "share": shares.get(c, 0.0),
                    "labeled_share": labeled_shares.get(c, 0.0),
                    "rate": pseudo.rate(c), "labeled_rate": labeled.rate(c),
                }
                for c in sorted(shares.keys() | labeled_shares.keys())
            ],
            "warnings": self.warnings,
        }  # fmt: skip

    def state(self) -> WatchState:
        """For exact resuming, with any number of processes; to be called in all of them."""
        views = [(iteration, position, tuple(view)) for iteration, position, view in self.window()]
        warnings: list[Warned] = [{**warning} for warning in self.warnings]
        return {"views": views, "warnings": warnings, "fault": self.fault}

    def load_state(self, state: WatchState) -> None:
        """Restores a result of `state`."""
        views = [(iteration, position, View(*view)) for iteration, position, view in state["views"]]
        self.views.clear()
        self.views.extend(views[distributed.rank() :: distributed.world_size()])
        self.warnings, self.fault = list(state["warnings"]), state.get("fault")


def make_watch(config: Config, labeled: TALDataset, label_ids: Mapping[str, int]) -> Watch | None:
    """The watch that `semi_cfg.watch` asks for; None if it is switched off.

    Args:
        config: resolved, with `semi_cfg`.
        labeled: the labeled training videos.
        label_ids: class name -> id.
    """
    semi = semi_section(config)
    if not semi.watch.videos:
        return None
    return Watch(
        semi.watch, stop=semi.on_collapse == "stop", labeled=lambda: LabeledRange.of(labeled),
        names=names_of(label_ids), advice=advice_of(semi, config["model"]),
    )  # fmt: skip


def _short(value: float) -> str:
    return f"{value:.3g}"


def _bounds(finding: Finding) -> str:
    if not math.isfinite(finding.high):
        return f"at least {_short(finding.low)}"
    return f"{_short(finding.low)} to {_short(finding.high)}"

"""What would keep a run from learning, before it starts."""

from __future__ import annotations

from typing import Any

from libs.core import distributed
from libs.datasets import TALDataset
from libs.datasets.annotations import MIN_DURATION


def check_events(dataset: Any, *, what: str = "training") -> None:
    """Raises ValueError where no event of a data set has a length: there is nothing to learn."""
    videos = getattr(dataset, "videos", None)
    if videos is None:
        return  # a data set of the user's own
    events = [event for video in videos for event in video.events]
    long = [event for event in events if event.end - event.start >= MIN_DURATION]
    if long and (not isinstance(dataset, TALDataset) or any(map(dataset.has_event_on_grid, range(len(videos))))):
        return
    found = "no event" if not events else f"{len(events)} events, none of which has a length"
    if long:
        found = f"{len(events)} events, all outside the features of their videos"
    raise ValueError(
        f"{dataset.json_file}: nothing to learn: the {len(videos)} {what} videos of {list(dataset.split)} have "
        f"{found}; `actionformer-nt check-data` tells more"
    )


def check_parts(accumulate: int, batch_sizes: dict[str, int]) -> None:
    """Whether all processes cut every batch into the same number of equal parts; else they would wait for each other.

    Args:
        accumulate: `train_cfg.accumulate`.
        batch_sizes: videos of all processes together, by the key of the configuration that says so.

    Raises:
        ValueError: names the key.
    """
    for key, size in batch_sizes.items():
        if accumulate > 1 and size % (accumulate * distributed.world_size()):
            raise ValueError(
                f"{key}: {size} must be a multiple of train_cfg.accumulate: {accumulate} times the number of "
                f"processes, {distributed.world_size()}"
            )

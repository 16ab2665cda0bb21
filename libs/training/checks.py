"""Checks before training: mistakes that would keep a run from learning."""

from __future__ import annotations

from typing import Any

from libs.core import distributed
from libs.datasets import TALDataset
from libs.datasets.annotations import MIN_DURATION


def check_events(dataset: Any, *, what: str = "training") -> None:
    """Checks that a training set has an event that the network can learn.

    Args:
        dataset: a `TALDataset`, or a data set of a plug-in.
        what: adjective of the videos in the error message.

    Raises:
        ValueError: no event has a positive length and lies within the features of its video.
    """
    videos = getattr(dataset, "videos", None)
    if videos is None:
        return  # a data set of a plug-in
    events = [event for video in videos for event in video.events]
    long = [event for event in events if event.end - event.start >= MIN_DURATION]
    if long and (not isinstance(dataset, TALDataset) or any(map(dataset.has_event_on_grid, range(len(videos))))):
        return
    problem = "no event" if not events else f"{len(events)} events, none of which has a length"
    if long:
        problem = f"{len(events)} events, all outside the features of their videos"
    raise ValueError(
        f"{dataset.json_file}: nothing to learn: the {len(videos)} {what} videos of {list(dataset.split)} have "
        f"{problem}; `actionformer-nt check-data` tells more"
    )


def check_parts(accumulate: int, batch_sizes: dict[str, int]) -> None:
    """Checks that every process can cut every batch into `accumulate` equal parts; otherwise processes would deadlock.

    Args:
        accumulate: `train_cfg.accumulate`.
        batch_sizes: configuration key -> batch size of all processes together.

    Raises:
        ValueError: a batch size is not a multiple of `accumulate` times the number of processes; names the key.
    """
    for key, size in batch_sizes.items():
        if accumulate > 1 and size % (accumulate * distributed.world_size()):
            raise ValueError(
                f"{key}: {size} must be a multiple of train_cfg.accumulate: {accumulate} times the number of "
                f"processes, {distributed.world_size()}"
            )

"""Types of videos and events in the annotation files that this project writes."""

from __future__ import annotations

from typing import TypedDict

from typing_extensions import NotRequired


class EventEntry(TypedDict):
    """One event."""

    segment: list[float]  # start and end in seconds
    label: str
    label_id: int


class VideoEntry(TypedDict):
    """One video under the key `database`; `read_annotations` reads further keys into `Video.extra`."""

    subset: str
    duration: NotRequired[float]  # seconds
    fps: NotRequired[float]
    labeled: NotRequired[bool]  # False: never annotated
    offset: NotRequired[float]  # seconds from the first feature to the start of an Ego4D clip
    annotations: list[EventEntry]

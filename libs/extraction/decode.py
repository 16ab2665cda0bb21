"""Frames of video files, upright, with their times, and at a constant rate.

Time 0 is the first frame. Players and label tools show a video so, whatever its time stamps begin with.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from libs.core.extras import need

logger = logging.getLogger(__name__)

LIKELY_RATES = (0.05, 1000)  # frames per second; other native rates are taken to be wrong

LATEST_END = 0.5  # seconds that a video may end before its header says, and 2 % of its length
LONGEST_GAP = 60.0  # seconds between two frames; more is a jump of the time stamps


class VideoError(ValueError):
    """A video file that cannot be read; the message names the file and what to do."""


class Frame(NamedTuple):
    """A decoded frame."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, upright
    time: float  # seconds after the first frame
    duration: float = 0.0  # seconds; 0: not known


class VideoFile:
    """A video file.

    Attributes:
        path: its path.
        seconds: its length as its header has it; None: it does not say it.

    Raises:
        FileNotFoundError: no such file.
        VideoError: no video file, a damaged one, or one without a video stream.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        with self._open() as container:
            stream = container.streams.video[0]
            self._rate = stream.average_rate or stream.guessed_rate
            self.seconds = _declared_seconds(container, stream)

    @property
    def rate(self) -> Fraction:
        """Frames per second: the average over the file, also where the rate varies.

        Raises:
            VideoError: the file does not say it, or it is no usual rate.
        """
        low, high = LIKELY_RATES
        if self._rate is None or not low <= self._rate <= high:
            raise VideoError(f"{self.path}: frame rate {self._rate}: expected {low} to {high}; give --fps")
        return Fraction(self._rate)

    def frames(self) -> Iterator[Frame]:
        """All frames in the order of time. AVI files with B-frames have no usable time stamps; their rate is constant.
        Damaged frames come as the decoder mends them, and a warning tells their number.

        Raises:
            VideoError: the file ends early or is damaged; names the time up to which it could be read.
        """
        av = need("av", extra="video", what="decoding videos")
        first, last, end, damaged = None, 0.0, 0.0, Damage()
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            constant = container.format.name == "avi" and stream.codec_context.has_b_frames
            try:
                for count, frame in enumerate(container.decode(stream)):
                    if frame.pts is None and not constant:
                        raise VideoError(f"{self.path}: a frame after {last:.2f} s has no time stamp; convert the file")
                    time = float(count / self.rate) if constant else frame.time
                    first = time if first is None else first
                    if not -0.001 <= time - first - last <= LONGEST_GAP:
                        raise VideoError(
                            f"{self.path}: the time stamps jump from {last:.2f} to {time - first:.2f} s: several "
                            "recordings in one file? Convert it, or cut it in pieces"
                        )
                    last = time - first
                    damaged.note(last, frame.is_corrupt)
                    length = min(float((frame.duration or 0) * frame.time_base), LONGEST_GAP)
                    end = last + length
                    yield Frame(_upright(frame), last, length)
            except av.FFmpegError as error:
                raise VideoError(
                    f"{self.path}: damaged after {last:.2f} s: {error.strerror}; convert the file"
                ) from None
            declared = _declared_seconds(container, stream)
        if first is None:
            raise VideoError(f"{self.path}: no frame could be decoded; convert the file")
        if damaged.count:
            logger.warning("%s: %s; their features are of what the decoder made of them", self.path, damaged)
        slack = LATEST_END + 0.02 * (declared or 0) + float(1 / (self._rate or 1))
        if declared is not None and first + end < declared - slack:
            raise VideoError(
                f"{self.path}: ends after {last:.2f} s, but its header says {declared:.2f} s: copied in part? Copy it "
                "again, or convert the file"
            )

    def _open(self) -> Any:
        av = need("av", extra="video", what="decoding videos")
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"video not found: {self.path}")
        try:
            container = av.open(self.path, mode="r")
        except av.FFmpegError as error:
            raise VideoError(f"{self.path}: no video file, or a damaged one: {error.strerror}") from None
        if container.format.name.startswith("image2") or container.format.name.endswith("_pipe"):
            container.close()
            raise VideoError(f"{self.path}: a picture, no video")
        if all(stream.disposition & stream.disposition.attached_pic for stream in container.streams.video):
            kinds = ", ".join(sorted({stream.type for stream in container.streams} - {"video"})) or "nothing"
            container.close()
            raise VideoError(f"{self.path}: no video stream in it, only {kinds}")
        if container.streams.video[0].codec_context is None:
            container.close()
            raise VideoError(f"{self.path}: its codec is not known; convert the file, such as to H.264")
        return container


@dataclass
class Damage:
    """The damaged frames of a video."""

    count: int = 0
    first: float = 0.0  # seconds
    last: float = 0.0

    def note(self, time: float, is_damaged: bool) -> None:
        """Notes a frame."""
        if is_damaged:
            self.first = self.first if self.count else time
            self.last, self.count = time, self.count + 1

    def __str__(self) -> str:
        return f"{self.count} damaged frames from {self.first:.2f} to {self.last:.2f} s"


def _declared_seconds(container: Any, stream: Any) -> float | None:
    """Length or end of the video stream, as the file's header has it; None if it says nothing about this stream."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if tag := stream.metadata.get("DURATION"):  # Matroska
        try:
            hours, minutes, seconds = map(float, tag.split(":"))
            return 3600 * hours + 60 * minutes + seconds
        except ValueError:  # another form
            return None
    alone = len(container.streams) == 1 and container.duration is not None
    return container.duration / 1e6 if alone else None


def _upright(frame: Any) -> np.ndarray:
    """The image (H, W, 3) as players show it."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90)  # counterclockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns % 4 else image


def at_rate(frames: Iterator[Frame], rate: Fraction) -> Iterator[np.ndarray]:
    """Images at the times k / rate, k = 0, 1, ...: each time the nearest frame, of two equally near ones the later.

    They end when the last frame does, but for a quarter of a step, or a quarter of a step after it, if its duration is
    not known. So a file of this constant rate gives each of its frames once, whatever the rounding of its time stamps,
    and one of a varying rate gives images at even times."""
    count, previous = 0, None
    for frame in frames:
        while previous is not None and count / rate < Fraction(previous.time + frame.time) / 2:
            yield previous.image
            count += 1
        previous = frame
    quarter = 1 / (4 * rate)
    while previous is not None and count / rate <= Fraction(previous.time) + max(
        quarter, Fraction(previous.duration) - quarter
    ):
        yield previous.image
        count += 1

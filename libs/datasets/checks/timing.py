"""Compares the time span of features with the duration of videos, and suggests a stride or frame rate that fits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .findings import Findings

SECONDS, SHARE = 1.0, 0.02  # tolerated difference: the larger of one second and this share of the duration
FPS = (5, 10, 12.5, 15, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60)
CONSISTENT = 0.02  # relative tolerance within which one value fits several videos


class VideoLength(NamedTuple):
    video_id: str
    steps: int  # number of features
    duration: float  # seconds
    fps: float

    def covered(self, stride: float, num_frames: float) -> float:
        """Time in seconds at which the window of the last feature ends."""
        return ((self.steps - 1) * stride + num_frames) / self.fps

    def fits(self, stride: float, num_frames: float) -> bool:
        """Whether the features cover the video, within the tolerance."""
        tolerance = max(SECONDS, SHARE * self.duration, (stride + num_frames) / self.fps)
        return abs(self.covered(stride, num_frames) - self.duration) <= tolerance


def check_lengths(lengths: list[VideoLength], findings: Findings, *, stride: float, num_frames: float) -> None:
    """Reports videos whose features do not match their duration: as errors with a suggested setting if most videos are
    wrong, else as warnings."""
    wrong = [video for video in lengths if not video.fits(stride, num_frames)]
    if not wrong:
        return
    most = len(wrong) > len(lengths) / 2 and len(wrong) > 1
    advice = fitting(lengths, stride=stride, num_frames=num_frames) if most else "cut differently, or damaged"
    for video in wrong:
        expected = max((video.duration * video.fps - num_frames) / stride + 1, 1)
        findings.add(
            "error" if most else "warning", "timing" if most else "length", video.video_id,
            f"{video.steps} steps, expected about {expected:.0f} (features end at "
            f"{video.covered(stride, num_frames):.1f} s, the video at {video.duration:.1f} s)",
            advice=advice,
        )  # fmt: skip


def check_ends(lengths: list[VideoLength], ends: dict[str, float], findings: Findings) -> None:
    """Detects durations that were computed with a wrong frame rate.

    Such durations agree with the features, which are counted in frames, but not with the events, which are annotated in
    seconds: events end after their videos, by at most the same factor.

    Args:
        ends: video id -> end of its last event in seconds.
    """
    late = [video for video in lengths if ends.get(video.video_id, 0.0) > video.duration + SECONDS]
    if len(late) < 2 or "timing" in findings:
        return
    factor = max(ends[video.video_id] / video.duration for video in late)
    rates = {video.fps for video in lengths}
    slower = [fps for fps in FPS if fps * factor <= min(rates) * (1 + CONSISTENT)]
    if len(rates) > 1 or not slower:
        return
    (fps,) = rates
    for video in late:
        findings.add(
            "error", "frame-rate", video.video_id,
            f"{video.steps} features fit {video.duration:.1f} s at {fps:g} frames per second, but events end at "
            f"{ends[video.video_id]:.1f} s",
            advice=f"at {max(slower):g} frames per second all events would lie in their videos: correct fps and "
            f"duration (now times {fps / max(slower):.4g})",
        )  # fmt: skip


def fitting(lengths: list[VideoLength], *, stride: float, num_frames: float) -> str:
    """Suggests the stride or the frame rate with which the features would cover their videos."""
    long = [video for video in lengths if video.steps > 1]
    if not long:
        return ""
    frames = np.array([video.duration * video.fps for video in long])
    steps, seconds = np.array([video.steps for video in long]), np.array([video.duration for video in long])
    suggestions = []
    for name, least, most, candidates in (  # bounds: the T-th window still fits into the video, a further one would not
        ("feat_stride", (frames - num_frames) / steps, (frames - num_frames) / (steps - 1), None),
        ("default_fps", ((steps - 1) * stride + num_frames) / seconds, (steps * stride + num_frames) / seconds, FPS),
    ):
        value = _common(least, most, candidates)
        if value is not None:
            suggestions.append(f"dataset.{name}: {value:g}")
    if suggestions:
        return " or ".join(suggestions) + " would fit"
    return "no one stride or frame rate fits all videos: look at each video's 'fps'"


def _common(least: np.ndarray, most: np.ndarray, candidates: tuple[float, ...] | None) -> float | None:
    """A value within nearly all intervals [least, most] (V,), a whole number or one of `candidates` if possible; None
    if there is no such value."""
    low, high = float(np.percentile(least, 90)), float(np.percentile(most, 10))
    middle = (low + high) / 2
    if middle <= 0 or low - high > CONSISTENT * middle:
        return None
    low, high = min(low, high) - CONSISTENT * middle, max(low, high) + CONSISTENT * middle
    near = round(middle) if candidates is None else min(candidates, key=lambda number: abs(number - middle))
    return near if low <= near <= high else round(middle, 2)

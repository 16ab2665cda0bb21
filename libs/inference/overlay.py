"""A copy of a video in which detections are drawn."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from libs.core.extras import need
from libs.extraction.decode import VideoFile, at_rate

from .timeline import class_color

MOST = 3  # detections named at once
SMALLEST_FONT, SMALLEST_BAR = 10, 6  # pixels


def write_overlay(path: str | os.PathLike, video: str | os.PathLike, table: pd.DataFrame, *, duration: float) -> None:
    """Writes an H.264 copy of a video, without sound, at the average rate of its frames.

    At each time the best detections are named, with their scores, at the top left. A bar along the bottom has all
    detections of the video in the colours of their classes, stronger for higher scores, and a mark at the time.

    Args:
        table: of this video (see `evaluation.detections.to_table`).
        duration: of the video in seconds.

    Raises:
        VideoError: the video cannot be read.
        MissingExtraError: PyAV is not installed.
    """
    from PIL import Image

    av = need("av", extra="video", what="writing videos")
    file, part = VideoFile(video), os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.part")
    table = table.sort_values("score", ascending=False, kind="stable")
    try:
        with av.open(part, "w", format="mp4") as container:
            stream, bar = container.add_stream("libx264", rate=file.rate), None
            stream.pix_fmt = "yuv420p"
            for k, image in enumerate(at_rate(file.frames(), file.rate)):
                if bar is None:
                    size = [max(side // 2 * 2, 2) for side in image.shape[:2]]  # even, as H.264 wants it
                    stream.height, stream.width = size
                    bar = bar_of(table, duration=duration, size=(size[0], size[1]))
                picture = np.array(Image.fromarray(image).resize((size[1], size[0])))  # a video may change its size
                draw(picture, table, bar, time=float(k / file.rate), duration=duration)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)


def bar_of(table: pd.DataFrame, *, duration: float, size: tuple[int, int]) -> np.ndarray:
    """The bar of all detections, (h, W, 3) uint8, for pictures of H x W; better ones lie over worse ones."""
    height, width = min(max(SMALLEST_BAR, size[0] // 30), size[0]), size[1]
    bar = np.full((height, width, 3), 40.0)
    for row in table.iloc[::-1].itertuples():
        begin, end = (round(float(t) / duration * width) for t in (row.start, row.end))
        strength = 0.2 + 0.8 * float(row.score)
        bar[:, begin : max(end, begin + 1)] *= 1 - strength
        bar[:, begin : max(end, begin + 1)] += strength * _rgb(row.label_id)
    return bar.round().astype(np.uint8)


def draw(picture: np.ndarray, table: pd.DataFrame, bar: np.ndarray, *, time: float, duration: float) -> None:
    """Draws the detections at a time, best first in the table, into a picture (H, W, 3) uint8."""
    height, width = picture.shape[:2]
    picture[height - len(bar) :] = bar
    mark = min(int(time / duration * width), width - 2) if duration else 0
    picture[height - len(bar) :, mark : mark + 2] = 255
    shown = table[(table["start"] <= time) & (time < table["end"])].head(MOST)
    if len(shown):
        _write(picture, [(f"{row.label} {row.score:.2f}", _rgb(row.label_id)) for row in shown.itertuples()])


def _write(picture: np.ndarray, lines: list[tuple[str, np.ndarray]]) -> None:
    """Writes lines of text, each with a patch of its colour before it, on a dark ground at the top left."""
    from matplotlib.font_manager import findfont
    from PIL import Image, ImageDraw, ImageFont

    size = max(SMALLEST_FONT, picture.shape[0] // 24)
    font = ImageFont.truetype(findfont("DejaVu Sans"), size)  # of matplotlib, with more letters than Pillow's own
    width = min(round(max(font.getlength(text) for text, _ in lines) + 2.5 * size), picture.shape[1])
    ground = picture[: round(1.4 * size * len(lines) + 0.4 * size), :width]
    ground[:] = ground // 3
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    for k, (text, color) in enumerate(lines):
        top = round((0.2 + 1.4 * k) * size)
        pen.rectangle((0.4 * size, top + 0.2 * size, 1.2 * size, top + size), fill=tuple(int(x) for x in color))
        pen.text((1.6 * size, top), text, fill=(255, 255, 255), font=font)
    picture[:] = np.asarray(image)


def _rgb(label_id: int) -> np.ndarray:
    """(3,) colour of a class."""
    text = class_color(int(label_id))
    return np.array([int(text[k : k + 2], 16) for k in (1, 3, 5)], dtype=np.float64)

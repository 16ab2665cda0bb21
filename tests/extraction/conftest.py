"""Small video files, written with PyAV."""

import runpy
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest


@pytest.fixture(scope="session")
def torchvision():
    """torchvision, importable."""
    path = Path(__file__).with_name("operators.py")
    return runpy.run_path(str(path))["import_torchvision"]()


def numbered(count, size=(48, 64)):
    """Frames whose grey level is 5 times their number, with a bright corner at the top left."""
    for k in range(count):
        image = np.full((*size, 3), 5 * k % 200, np.uint8)
        image[: size[0] // 4, : size[1] // 4] = 255
        yield image


def write_video(path, images, *, rate=30, times=None, codec="libx264", rotation=None, options=None, start=0):
    """Writes images (H, W, 3) to a video file.

    Args:
        times: time stamps in seconds; None: at even steps.
        start: added to all time stamps, in seconds.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.options = {"crf": "1", **(options or {})} if codec == "libx264" else (options or {})
        stream.pix_fmt = "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation)
        base = 1 / Fraction(rate) if path.suffix == ".avi" else Fraction(1, 90_000)
        stream.codec_context.time_base = base
        for k, image in enumerate(images):
            if k == 0:
                stream.width, stream.height = image.shape[1], image.shape[0]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            time = start + (Fraction(k) / Fraction(rate) if times is None else times[k])
            frame.pts, frame.time_base = round(Fraction(time) / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def video_file(tmp_path):
    """A function that writes a video and returns its path."""

    def write(name="video.mp4", images=None, count=40, **options):
        return write_video(tmp_path / name, numbered(count) if images is None else images, **options)

    return write

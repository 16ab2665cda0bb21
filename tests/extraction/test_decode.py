"""Decoding real files: every frame, its time, its orientation, a constant rate, and bad files."""

import logging
import re
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from libs.core.extras import MissingExtraError, need
from libs.extraction.decode import Frame, VideoError, VideoFile, at_rate


def number_of(image):
    """The number that `numbered` gave an image."""
    return round(float(image[30:, 30:].mean()) / 5)


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv", "video.avi"])
@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_every_frame_comes_once_in_its_order(video_file, name, b_frames):
    video = VideoFile(video_file(name, rate=25, options={"bf": b_frames, "g": "12"}))
    frames = list(video.frames())
    assert video.rate == 25 and [number_of(f.image) for f in frames] == list(range(40))
    assert [f.time for f in frames] == pytest.approx([k / 25 for k in range(40)], abs=1e-3)
    assert frames[0].image.shape == (48, 64, 3) and frames[0].image.dtype == np.uint8
    assert [number_of(image) for image in at_rate(iter(frames), video.rate)] == list(range(40))


def test_time_begins_with_the_first_frame(video_file):
    frames = list(VideoFile(video_file("video.mkv", start=7)).frames())
    assert frames[0].time == 0 and frames[-1].time == pytest.approx(39 / 30, abs=2e-3)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_rotated_video_is_upright(video_file, rotation):
    """As a phone writes it: the picture is stored on its side, and players turn it."""
    (image, *_) = (f.image for f in VideoFile(video_file(rotation=rotation)).frames())
    (plain, *_) = (f.image for f in VideoFile(video_file("plain.mp4")).frames())
    assert image.shape[:2] == ((64, 48) if abs(rotation) == 90 else (48, 64))
    turned = np.rot90(plain, rotation // 90)
    assert np.abs(image.astype(int) - turned).mean() < 2


def test_a_varying_rate_is_read_by_time(video_file):
    """Every third frame is missing: each image at an even time is the nearest one."""
    kept = [k for k in range(40) if k % 3 != 2]
    images = [np.full((48, 64, 3), 5 * k, np.uint8) for k in kept]
    path = video_file("vfr.mkv", images, times=[Fraction(k, 30) for k in kept])
    found = [number_of(image) for image in at_rate(VideoFile(path).frames(), Fraction(30))]
    assert len(found) == kept[-1] + 1
    for k, number in enumerate(found):
        assert abs(number - k) == (0 if k in kept else 1)


@given(
    st.lists(st.floats(0.001, 0.2), min_size=1, max_size=30), st.sampled_from([Fraction(5), Fraction(30000, 1001)])
)  # fmt: skip
def test_the_nearest_frame_against_a_loop(steps, rate):
    times = np.cumsum([0, *steps])
    frames = [Frame(np.array(k), float(t)) for k, t in enumerate(times)]
    found = [int(image) for image in at_rate(iter(frames), rate)]
    for k, number in enumerate(found):
        distance = np.abs(times - float(k / rate))
        assert distance[number] <= distance.min() + 1e-9
    end = float(times[-1])
    assert (len(found) - 1) / float(rate) <= end + 0.25 / float(rate) + 1e-9 < (len(found) + 1e-6) / float(rate) + 1e-9


def test_half_the_rate_takes_every_second_frame(video_file):
    found = [number_of(image) for image in at_rate(VideoFile(video_file()).frames(), Fraction(15))]
    assert found == list(range(0, 40, 2))


def test_bad_files(video_file, tmp_path):
    with pytest.raises(FileNotFoundError, match="video not found"):
        VideoFile(tmp_path / "none.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4: no video file, or a damaged one"):
        VideoFile(text)
    path = video_file()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(VideoError, match=r"cut\.mp4: no video file, or a damaged one"):
        VideoFile(cut)
    long = video_file("long.mkv", count=150)
    part = tmp_path / "part.mkv"
    part.write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"part\.mkv: ends after \d\.\d\d s, but its header says 5\.00 s"):
        list(VideoFile(part).frames())
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"empty\.mp4"):
        VideoFile(tmp_path / "empty.mp4")


def test_damaged_frames_are_told(video_file, caplog, monkeypatch):
    """The decoder mends them, and goes on."""
    monkeypatch.setattr(logging.getLogger("libs"), "propagate", True)  # a command may have switched it off
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    path = video_file("noise.avi", noise)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(byte ^ 0x5A for byte in content[middle : middle + 400])
    path.write_bytes(content)
    assert len(list(VideoFile(path).frames())) == 60
    assert re.search(r"noise\.avi: \d damaged frames from 0\.\d\d to [01]\.\d\d s", caplog.text)


def test_time_stamps_that_jump_are_told(video_file, tmp_path):
    one, two = video_file("one.ts", count=60), video_file("two.ts", count=60)
    late = video_file("late.ts", count=60, start=1000)
    for files, word in (((one, two), "jump from 1.97 to 0.00 s"), ((one, late), "jump from 1.97 to 999")):
        (tmp_path / "both.ts").write_bytes(b"".join(file.read_bytes() for file in files))
        with pytest.raises(VideoError, match=word):
            list(VideoFile(tmp_path / "both.ts").frames())


def test_an_avi_may_have_a_gap(video_file):
    kept = [*range(20), *range(30, 50)]
    images = [np.full((48, 64, 3), 4 * k, np.uint8) for k in kept]
    path = video_file("gap.avi", images, times=[Fraction(k, 30) for k in kept], options={"bf": "0"})
    times = [f.time for f in VideoFile(path).frames()]
    del times[19], kept[19]  # AVI moves the frame before a gap to its end
    assert times == pytest.approx([k / 30 for k in kept], abs=1e-3)


def test_a_rate_that_is_none_matters_only_where_it_is_used(video_file):
    video = VideoFile(video_file("slow.mkv", count=4, times=[Fraction(3 * k) for k in range(4)], rate=1))
    video._rate = None
    assert len(list(at_rate(video.frames(), Fraction(1)))) == 10
    with pytest.raises(VideoError, match=r"frame rate None: expected 0\.05 to 1000; give --fps"):
        _ = video.rate


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="no video stream in it, only audio"):
        VideoFile(path)


def test_a_codec_that_nobody_knows(video_file):
    path = video_file("video.mkv")
    content = path.read_bytes()
    assert b"V_MPEG4/ISO/AVC" in content
    path.write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_NOBODY/HAS/IT"))
    with pytest.raises(VideoError, match=r"video\.mkv: its codec is not known; convert the file, such as to H\.264"):
        VideoFile(path)


def test_what_is_shown_last_stays_as_long_as_it_is_shown():
    frames = [Frame(np.array(0), 0.0, 0.1), Frame(np.array(1), 0.1, 3.0)]
    assert [int(i) for i in at_rate(iter(frames), Fraction(10))] == [0] + [1] * 30
    assert [int(i) for i in at_rate(iter([f._replace(duration=0.0) for f in frames]), Fraction(10))] == [0, 1]


def test_a_picture_is_no_video(tmp_path):
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "one.png")
    with pytest.raises(VideoError, match=r"one\.png: a picture, no video"):
        VideoFile(tmp_path / "one.png")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.avi", "no frame could be decoded"),
        ("nothing.mp4", "no video stream in it, only nothing"),
        ("nothing.webm", "no video file, or a damaged one"),
    ],
)
def test_a_file_without_frames(tmp_path, name, message):
    """As cameras leave it that were switched off at once."""
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx" if name.endswith("webm") else "mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(VideoError, match=f"{name}: {message}"):
        list(VideoFile(path).frames())


def test_the_number_of_frames_is_known_before(video_file):
    assert VideoFile(video_file()).seconds == pytest.approx(40 / 30, abs=0.02)
    assert VideoFile(video_file("v.mkv", count=90)).seconds == pytest.approx(3, abs=0.04)


def test_a_missing_package_names_its_extra():
    with pytest.raises(MissingExtraError, match=r"pip install 'actionformer-nt\[video\]'"):
        need("no_such_package", extra="video", what="decoding videos")

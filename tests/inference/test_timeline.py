"""Pictures of detections: colours that stay, text that is whole, ticks that read as times."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from libs.inference.timeline import MAX_CLASSES, class_color, draw_timeline, save_timeline


def make_table(labels, *, duration=100.0, name="class {}"):
    """A sure detection of each class, one after the other."""
    edges = np.linspace(0, duration, len(labels) + 1)
    return pd.DataFrame(
        {
            "video": "v", "start": edges[:-1], "end": edges[1:], "label": [name.format(c) for c in labels],
            "label_id": np.array(labels, dtype=np.int64), "score": 1.0,
        }
    )  # fmt: skip


def colors_of(path):
    """The colours, not greys, that fill an area of the picture, as a set of RGB."""
    pixels = np.rint(255 * imread(path)[..., :3]).astype(int).reshape(-1, 3)
    found, count = np.unique(pixels[np.ptp(pixels, axis=1) > 20], axis=0, return_counts=True)
    return {tuple(rgb) for rgb in found[count > 1000].tolist()}


def luminance(color):
    """WCAG's relative luminance."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_a_class_has_the_same_color_in_every_picture(tmp_path):
    classes = [0, 2, 5, 6, 13]
    alone = {}
    for label in classes:
        save_timeline(tmp_path / f"{label}.png", make_table([label]), title="v", duration=100)
        (alone[label],) = colors_of(tmp_path / f"{label}.png")
    assert len(set(alone.values())) == len(classes)
    for shown in ([13, 0], [6, 2, 5], classes[::-1]):
        save_timeline(tmp_path / "some.png", make_table(shown), title="v", duration=100)
        assert colors_of(tmp_path / "some.png") == {alone[label] for label in shown}


def test_colors_of_many_classes_differ_and_are_seen_on_white():
    colors = [class_color(label) for label in range(200)]
    assert len(set(colors)) == 200
    assert min(1.05 / (luminance(color) + 0.05) for color in colors) > 1.8  # the palest of Tol's


@pytest.mark.parametrize("duration", [121, 130, 299, 600, 1234.5, 3599, 8123, 36000, 200000])
def test_long_videos_have_ticks_at_whole_units_of_a_clock(duration):
    figure = draw_timeline(make_table([0, 1], duration=duration), title="v", duration=duration)
    figure.draw_without_rendering()
    ticks = zip(figure.axes[0].get_xticks(), figure.axes[0].get_xticklabels(), strict=True)
    seen = {t: label.get_text() for t, label in ticks if 0 <= t <= duration}
    (step,) = set(np.diff(list(seen)))
    assert 4 <= len(seen) <= 11
    assert (60 % step == 0 and step >= 15) or (step % 60 == 0 and 3600 % step == 0) or step % 3600 == 0
    for t, text in seen.items():
        *hours, minutes, seconds = map(int, text.split(":"))
        assert len(hours) == (duration >= 3600) and 3600 * sum(hours) + 60 * minutes + seconds == t


def test_no_text_is_cut_off_or_lies_over_another():
    labels = list(range(MAX_CLASSES + 3))
    table = make_table(labels)
    table.loc[::3, "label"] += " of cleaning windows with a very long squeegee and soap, more than once or twice a day"
    title = "/".join(f"a_folder_with_a_long_name_{i}" for i in range(8))
    figure = draw_timeline(table, title=title, duration=100)
    figure.draw_without_rendering()
    texts = [*figure.axes[0].get_yticklabels(), *figure.axes[0].get_xticklabels(), figure._suptitle]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) > MAX_CLASSES
    page = figure.bbox.padded(1)
    for i, box in enumerate(boxes):
        assert page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1), texts[i]
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[:i]), texts[i]
    assert figure.axes[0].get_window_extent().width > figure.bbox.width / 2
    assert "(3 more classes)" in figure._suptitle.get_text().replace("\n", " ")


def test_a_video_without_detections_has_a_picture(tmp_path):
    save_timeline(tmp_path / "v.png", make_table([0]).iloc[:0], title="v", duration=100)
    assert colors_of(tmp_path / "v.png") == set()

"""What a reader can read of the page, in a real browser: whole words, numbers within reach, sensible axes, and one
colour for a class."""

import itertools
import json
import os
import random
import re

import pytest

from actionformer_nt.report import gather, write_report

if os.environ.get("ACTIONFORMER_NT_BROWSER") != "required":
    pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

SIZES = ("desktop", "phone")
WORD = 24  # characters; what is longer is no word
COMMAND = (
    "actionformer-nt train configs/semi/thumos14_i3d_nt_10.yaml --set opt.learning_rate=0.0001 --output a_test-run"
)
NAME = "a supervised run of long-distance features with_a_name_that_is_longer_than_any_word_is"
CLASSES = {f"action_{c:02d}": c for c in range(6)}  # of the data that `trained_runs` are trained on


@pytest.fixture(scope="session")
def mixed(trained_runs, write_run, tmp_path_factory):
    """Two runs that count iterations and one that counts epochs, of the same classes; the page and its folders."""
    folder = tmp_path_factory.mktemp("mixed")
    write_run(folder / NAME, videos=12, classes=6, name="action_{:02d}", external="scores.json")
    start = {"started": "2026-01-02T03:04:05+0000", "commit": "0123456789abcdef" * 2 + "+changes", "command": COMMAND}
    (folder / NAME / "run.json").write_text(json.dumps([start]))
    folders = [*trained_runs, folder / NAME]
    return write_report(folders, folder / "report.html"), folders


@pytest.fixture(scope="session")
def crowded(write_run, tmp_path_factory):
    """Many classes of long names, many bars over each other."""
    folder = tmp_path_factory.mktemp("crowded")
    name = "cleaning windows with a squeegee {}"
    for k in (1, 2):
        write_run(folder / f"{NAME} {k}", videos=2, detections=150, classes=20, seed=k, name=name)
    return write_report([folder / f"{NAME} {k}" for k in (1, 2)], folder / "report.html")


# of each word of each cell of the tables: the word, and on how many lines it is
LINES = """
const found = [];
for (const cell of document.querySelectorAll('th, td')) {
  const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    for (const { 0: word, index } of walk.currentNode.data.matchAll(/\\S+/g)) {
      const range = document.createRange();
      range.setStart(walk.currentNode, index);
      range.setEnd(walk.currentNode, index + word.length);
      found.push([word, new Set([...range.getClientRects()].map((box) => box.top)).size]);
    }
  }
}
return found
"""

# cells whose text is not wholly in them, or which scrolling their table does not bring to the screen, beside its first
# column
OUT_OF_REACH = """
const wrong = [], of = (node) => node.getBoundingClientRect();
for (const place of document.querySelectorAll('.scroll')) {
  for (const cell of place.querySelectorAll('th, td')) {
    const first = cell.parentElement.firstChild, range = document.createRange();
    range.selectNodeContents(cell);
    place.scrollLeft = 0;
    if (cell !== first) place.scrollLeft = of(cell).left - of(first).right;
    const left = Math.max(cell === first ? 0 : of(first).right, of(place).left), text = of(range);
    const inside = of(cell).left <= text.left && text.right <= of(cell).right;
    const near = left <= text.left + 1 && text.right <= of(place).right + 1;
    if (text.width && !(inside && near)) wrong.push(cell.textContent);
  }
}
return wrong
"""


@pytest.mark.parametrize("size", SIZES)
def test_words_of_tables_are_whole(browser, show, mixed, size):
    show(mixed[0], size)
    found = browser.execute_script(LINES)
    words = dict.fromkeys(word for word, _ in found)
    assert {"labeled", "annotations", "self-training", "a_test-run"} <= words.keys()
    assert [word for word, lines in found if lines > 1 and len(word) <= WORD] == []


@pytest.mark.parametrize("size", SIZES)
def test_every_cell_is_seen_or_scrolled_to(browser, show, mixed, size):
    show(mixed[0], size)
    assert browser.execute_script(OUT_OF_REACH) == []
    styles = "return [...document.querySelectorAll('#main *')].map((node) => getComputedStyle(node).textOverflow)"
    assert set(browser.execute_script(styles)) == {"clip"}  # no dots in place of an end
    # the tables of missed events lie beside each other and fit
    places = "[...document.querySelectorAll('#errors .cell .scroll')]"
    fits = browser.execute_script(f"return {places}.map((place) => place.scrollWidth - place.clientWidth)")
    assert len(fits) == 15 and (size == "phone" or set(fits) == {0})


def test_missed_events_have_their_counts(browser, show, mixed):
    """Against the diagnosis; shares in percent, ranges of whole numbers of events as such."""
    show(mixed[0])
    page = browser.execute_script(
        "return [...document.querySelectorAll('#errors .cell table')].map((t) => [...t.querySelectorAll('tr')]"
        ".map((r) => [...r.children].map((c) => c.textContent.replace('\\u00a0', ' '))))"
    )
    evaluations = [e for run in gather(mixed[1])["runs"] for e in run["evaluations"]]
    assert len(page) == 3 * len(evaluations)
    for k, e in enumerate(evaluations):
        for name, (head, *rows) in zip(("length", "instances", "coverage"), page[3 * k : 3 * k + 3], strict=True):
            assert head[1:] == ["events", "missed, %"]
            for row, group in zip(rows, e["diagnosis"]["groups"][name], strict=True):
                share = f"{100 * group['missed'][0] / group['events']:.1f}" if group["events"] else ""
                assert row[1:] == [str(group["events"]), share]
                if name == "coverage":
                    low, high = (None if x is None else f"{100 * x:.1f}" for x in (group["low"], group["high"]))
                    expected = f"> {low} %" if high is None else f"{low if float(low) else 0} – {high} %"
                    assert row[0] == expected
                if name == "instances" and group["high"] is not None:
                    numbers = [int(n) for n in row[0].split(" – ")]
                    assert group["low"] < numbers[0] <= numbers[-1] <= group["high"] < numbers[-1] + 1


def test_shares_are_percents_with_sensible_digits(browser, show, mixed):
    show(mixed[0])
    for value, text in ((0, "0"), (0.00901, "0.9"), (0.0123, "1.2"), (0.5, "50.0"), (1, "100.0"), (0.00031, "0.03")):
        assert browser.execute_script("return share(arguments[0])", value) == text
    values = browser.execute_script(
        "return [...document.querySelectorAll('.dist .row')].map((r) => r.lastChild.textContent)"
    )
    assert len(values) > 5 and all(re.fullmatch(r"\d+(\.\d+)? %", value) for value in values)


CHARTS = """
const texts = (root, selector) => [...root.querySelectorAll(selector)].map((node) => node.textContent);
return [...document.querySelectorAll(`#${arguments[0]} figure`)].filter((figure) => figure.querySelector('svg')).map(
  (figure) => [figure.firstChild.textContent, texts(figure, ':scope > svg text'), texts(figure, '.legend li')])
"""


def charts(browser, section):
    """(caption, texts of the axes, names in the legend) of each chart of a section."""
    return browser.execute_script(CHARTS, section)


def test_epochs_and_iterations_share_no_axis(browser, show, mixed):
    show(mixed[0])
    units = {run["name"]: run["curves"]["key"] for run in gather(mixed[1])["runs"]}
    assert set(units.values()) == {"epoch", "iteration"}
    found = charts(browser, "training")
    for caption, texts, names in found:
        assert {"epoch", "iteration", "iteration / epoch"} & set(texts) == {units[name] for name in names}, caption
    assert sorted(c for c, _, _ in found if "rate" in c) == ["learning rate, by epoch", "learning rate, by iteration"]
    ((_, texts, names),) = [chart for chart in charts(browser, "pseudo") if chart[0] == "pseudo segments per video"]
    assert "iteration" in texts and len(names) == 2


def test_ticks_are_enough_and_nice(browser, show, mixed):
    show(mixed[0])
    rng = random.Random(0)
    ranges = [(0, 100), (0, 85.3), (0, 99), (0, 1), (0.3, 0.7), (0, 1e-4), (0, 2e5), (-2.2, 2.9)]
    for _ in range(300):
        low = rng.choice([0, rng.uniform(-1, 1)])
        scale = 10 ** rng.uniform(-5, 6)
        ranges.append((low * scale, (low + rng.uniform(0.05, 1)) * scale))
    found = browser.execute_script(
        "return arguments[0].map(([a, b]) => { const t = ticks(a, b); return [t, t.map(tidy)]; })", ranges
    )
    for (low, high), (ticks, labels) in zip(ranges, found, strict=True):
        slack = 1e-9 * max(abs(low), abs(high))
        assert 4 <= len(ticks) <= 10 and low - slack <= ticks[0] and ticks[-1] <= high + slack
        step = ticks[1] - ticks[0]
        assert f"{step:.2e}"[:4] in ("1.00", "2.00", "5.00")
        assert all(abs(b - a - step) < 1e-6 * step for a, b in itertools.pairwise(ticks))
        assert len(set(labels)) == len(labels) and max(map(len, labels)) <= 8, labels
    for _, texts, _ in charts(browser, "map"):
        y = [float(t) for t in texts[: texts.index("0.3")]]  # these come first
        assert len(y) >= 4 and y[0] == 0 and y[-1] <= 100


# of each chart: where it is, the height of its letters in pixels, its texts and where they are
TEXTS = """
const box = (node) => { const b = node.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
const size = (text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a;
return [...document.querySelectorAll('svg[role=img]')].map((plot) => {
  const texts = [...plot.querySelectorAll('text')].filter((text) => text.textContent);
  return [box(plot), size(texts[0]), texts.map((text) => [text.textContent, ...box(text)])];
})
"""


@pytest.mark.parametrize("size", SIZES)
def test_texts_of_charts_are_whole_and_large_enough(browser, show, mixed, size):
    show(mixed[0], size)
    found = browser.execute_script(TEXTS)
    assert len(found) > 10
    for (left, top, right, bottom), pixels, texts in found:
        assert pixels >= 11
        for name, x0, y0, x1, y1 in texts:
            assert left - 1 <= x0 and x1 <= right + 1 and top - 1 <= y0 and y1 <= bottom + 1, name
        for (a, ax0, ay0, ax1, ay1), (b, bx0, by0, bx1, by1) in itertools.combinations(texts, 2):
            # a line of text is some pixels higher than its letters
            assert min(ax1, bx1) - max(ax0, bx0) <= 1 or min(ay1, by1) - max(ay0, by0) <= 5, (a, b)


@pytest.mark.parametrize("size", SIZES)
def test_texts_of_the_timeline_are_whole(browser, show, crowded, size):
    """Nothing is squeezed, leaves the canvas or lies over another text."""
    show(crowded, size)
    width, texts = browser.execute_script(
        "const drawn = [], draw = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (text, x, y, most) {"
        "  drawn.push([text, x, y, this.measureText(text).width, most ?? null]); draw.call(this, text, x, y); };"
        "drawSection('timeline');"
        "CanvasRenderingContext2D.prototype.fillText = draw;"
        "return [document.getElementById('bars').clientWidth, drawn]"
    )
    assert sum("run" in text for text, *_ in texts) >= 2 and (
        size == "phone" or sum("…" in text for text, *_ in texts) > 3
    )
    for text, x, _, wide, most in texts:
        assert most is None or wide <= most + 0.5, text
        assert x >= 0 and x + wide <= width, text
    for (a, ax, ay, aw, _), (b, bx, by, bw, _) in itertools.combinations(texts, 2):
        assert abs(ay - by) >= 11 or min(ax + aw, bx + bw) <= max(ax, bx), (a, b)


LEGEND = """
const shade = (item) => {
  const swatch = item.querySelector('.swatch'), mark = item.querySelector('svg > *');
  if (swatch) return getComputedStyle(swatch).backgroundColor;
  const { fill, stroke } = getComputedStyle(mark);
  return stroke === 'none' ? fill : stroke;
};
return [...arguments[0].querySelectorAll('.legend li')].map((item) => [item.textContent, shade(item)])
"""


def legend(browser, root):
    """{name: colour} of the legends in an element (a selector, or itself)."""
    root = browser.find_element(By.CSS_SELECTOR, root) if isinstance(root, str) else root
    found = browser.execute_script(LEGEND, root)
    assert len({tuple(item) for item in found}) == len(dict(found))  # a name that stands in two has one colour
    return dict(found)


def class_colors(browser):
    return legend(browser, "#timeline")


def luminance(color):
    """WCAG's relative luminance of rgb(r, g, b)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_class_has_one_color_on_the_page(browser, show, mixed):
    show(mixed[0])
    seen = {}
    for subset in ("test", "unlabeled training"):
        Select(browser.find_element(By.ID, "subset")).select_by_value(subset)
        for _ in range(3):
            for name, shade in class_colors(browser).items():
                assert seen.setdefault(name, shade) == shade
            browser.find_element(By.ID, "next").send_keys(Keys.ENTER)
    assert seen.keys() == CLASSES.keys() and len(set(seen.values())) == len(CLASSES)
    planes = browser.find_elements(By.CSS_SELECTOR, "#embeddings .grid:last-child figure")
    assert len(planes) == 2
    for plane in planes:
        marks = legend(browser, plane)
        assert len(marks) > 2 and marks == {name: seen[name] for name in marks}
    browser.find_element(By.CSS_SELECTOR, "#runs input").send_keys(Keys.SPACE)  # one run less
    assert class_colors(browser).items() <= seen.items()


def test_colors_do_not_depend_on_what_occurs(browser, show, mixed, write_run, tmp_path):
    """Runs of the same classes agree from page to page, whichever of them occur. Another run's classes of the same ids
    have other colours."""
    show(mixed[0])
    expected = class_colors(browser)
    content = "action_03"  # the only class that occurs
    write_run(tmp_path / "few", classes=1, name=content)
    for path in tmp_path.glob("few/*.json"):
        path.write_text(path.read_text().replace('"label_id": 0', '"label_id": 3'))
    (tmp_path / "few/classes.json").write_text(json.dumps(CLASSES))
    show(write_report([tmp_path / "few"], tmp_path / "few.html"))
    assert class_colors(browser) == {content: expected[content]}
    # beside a run of other classes with the same ids, whose names come first in the alphabet
    write_run(tmp_path / "other", classes=4, name="aaa_{}")
    show(write_report([tmp_path / "few", tmp_path / "other"], tmp_path / "both.html"))
    both = class_colors(browser)
    assert both[content] == expected[content] and len(set(both.values())) == len(both) == 5


def test_many_classes_have_as_many_colors_that_are_seen(browser, show, crowded):
    show(crowded)
    found = class_colors(browser)
    assert len(found) > 15 and len(set(found.values())) == len(found)
    assert min(1.05 / (luminance(shade) + 0.05) for shade in found.values()) > 2.2  # Okabe and Ito's orange


def test_parts_and_runs_have_one_color(browser, show, mixed):
    show(mixed[0])
    parts = legend(browser, "#space")
    assert len(parts) == 4 and legend(browser, "#pseudo .grid") == parts
    runs, evaluations = legend(browser, "#training"), legend(browser, "#map")
    assert len(set(runs.values())) == len(runs) == 3 and len(evaluations) == 5
    for name, shade in evaluations.items():
        assert shade == next(own for run, own in runs.items() if name.startswith(f"{run}, "))

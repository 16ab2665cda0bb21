"""The page in a real browser: Debian's chromium with its driver, or Chrome with chromedriver.

Skipped where there is none, unless ACTIONFORMER_NT_BROWSER=required. With ACTIONFORMER_NT_SCREENSHOTS=1 the pictures of
the documentation are made anew (docs/images, some minutes).
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from actionformer_nt.report import write_report
from libs.training.run_folder import WATCH

if os.environ.get("ACTIONFORMER_NT_BROWSER") != "required":
    pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"
SCREENSHOTS = os.environ.get("ACTIONFORMER_NT_SCREENSHOTS") == "1"
SIZES = {"desktop": 1280, "phone": 390}  # pixels wide


def wait(browser, condition):
    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: condition())


def by_id(browser, name):
    return browser.find_element(By.ID, name)


def picture(browser):
    return browser.execute_script("return document.getElementById('bars').toDataURL()")


def move(browser, value):
    """The slider, as a hand would: the value, and the event."""
    browser.execute_script(
        "const s = document.getElementById('score'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))", value
    )
    wait(browser, lambda: by_id(browser, "score-value").text == f"{value:.3f}")


def numbers(browser):
    """(shown, all) bars."""
    words = by_id(browser, "shown").text.split()
    return int(words[0]), int(words[2])


@pytest.fixture(scope="session")
def large(write_run, tmp_path_factory):
    """200 videos of 200 detections, of two runs; the second one rests on external scores."""
    folder = tmp_path_factory.mktemp("large")
    size = {"videos": 200, "detections": 199, "classes": 20}  # and one beside each event
    runs = {name: write_run(folder / name, seed=i, external=e, **size) for i, (name, e) in enumerate(
        [("first", None), ("second", "scores.json")]
    )}  # fmt: skip
    return write_report([folder / "first", folder / "second"], folder / "report.html"), runs


def test_200_videos_of_200_detections(browser, show, large):
    page, runs = large
    show(page)
    loaded = browser.execute_script("return performance.now()")
    Select(by_id(browser, "video")).select_by_value("video_150")
    found = [run[0] for run in runs.values()]
    here = [f.score[f.video_id == "video_150"].round(4) for f in found]
    assert numbers(browser)[1] == sum(map(len, here)) >= 400
    seen = set()
    for value in (0.0, 0.2, 0.5, 0.9, 1.0):
        move(browser, value)
        assert numbers(browser)[0] == sum(int((scores >= value).sum()) for scores in here)
        seen.add(picture(browser))
    assert len(seen) == 5
    # how fluid it is, for who reads the output (-s)
    move(browser, 0.0)
    cost = browser.execute_script(
        "const { rows, duration } = rowsOf('test', 'video_150'), began = performance.now();"
        "for (let i = 0; i < 20; i++) paint(document.getElementById('bars'), rows, duration);"
        "return (performance.now() - began) / 20"
    )
    size = page.stat().st_size / 1e6
    print(f"page of {size:.1f} MB up after {loaded:.0f} ms; one drawing of {numbers(browser)[1]} bars: {cost:.1f} ms")


def test_filter_rows_and_keyboard(browser, show, large):
    page, runs = large
    show(page)
    move(browser, 0.0)
    before, whole = picture(browser), numbers(browser)
    Select(by_id(browser, "class")).select_by_value("class3")
    wait(browser, lambda: numbers(browser)[0] < whole[0])
    count = sum(int(((run[0].video_id == "video_000") & (run[0].label == 3)).sum()) for run in runs.values())
    assert numbers(browser) == (count, whole[1]) and picture(browser) != before
    listed = browser.execute_script(
        "return [...document.querySelectorAll('#timeline tbody tr')].map((r) => r.children[3].textContent)"
    )
    assert listed and set(listed) == {"class3"}
    Select(by_id(browser, "class")).select_by_value("")
    wait(browser, lambda: numbers(browser)[0] == whole[0])
    # with the keyboard alone: the slider, the next video
    by_id(browser, "score").send_keys(Keys.END)
    wait(browser, lambda: by_id(browser, "score-value").text == "1.000")
    by_id(browser, "score").send_keys(Keys.ARROW_LEFT)
    wait(browser, lambda: by_id(browser, "score-value").text == "0.995")
    by_id(browser, "next").send_keys(Keys.ENTER)
    wait(browser, lambda: by_id(browser, "video").get_attribute("value") == "video_001")
    assert browser.switch_to.active_element.get_attribute("id") == "next"
    # one run less: fewer rows, fewer columns
    columns = "return document.querySelectorAll('#gain-table thead th').length"
    assert browser.execute_script(columns) == 3
    browser.find_element(By.CSS_SELECTOR, "#runs input").send_keys(Keys.SPACE)
    wait(browser, lambda: browser.execute_script(columns) == 2)
    assert "first, " not in by_id(browser, "main").text


def test_external_scores_stand_beside_every_number(browser, show, large):
    show(large[0])
    cells = browser.execute_script(
        "return [...document.querySelectorAll('th, td:first-child, figcaption, .legend li, option')]"
        ".map((node) => node.textContent).filter((text) => text.includes('second, '))"
    )
    assert len(cells) > 10 and all("(external scores)" in text for text in cells)


def test_tables_say_what_the_folder_says(browser, show, large):
    page, runs = large
    show(page)
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#map-table tbody tr')]"
        ".map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    for row, (_, _, result) in zip(rows, runs.values(), strict=True):
        assert row[1:] == [f"{100 * v:.2f}" for v in (*result.mAP, result.average_mAP)]
    Select(by_id(browser, "class-tiou")).select_by_value("0.5")
    Select(by_id(browser, "class-order")).select_by_value("0")
    values = browser.execute_script(
        "return [...document.querySelectorAll('#classes tbody tr')].map((r) => +r.children[2].textContent)"
    )
    ap = sorted(runs["first"][2].ap[1], reverse=True)
    assert values == pytest.approx([100 * v for v in ap], abs=0.051)


def test_semi_supervised_runs(browser, show, trained_runs, tmp_path):
    page = write_report(trained_runs, tmp_path / "report.html")
    show(page)
    text = by_id(browser, "main").text
    for word in (
        "Label space",
        "Embeddings",
        "Sizes of the subspaces",
        "target",
        "ambiguous",
        "pseudo segments per video",
    ):
        assert word in text
    assert browser.execute_script("return document.querySelectorAll('#embeddings svg[role=img]').length") == 4
    bars = "return document.querySelectorAll('#space .dist').length"
    whole = browser.execute_script(bars)
    box = Select(by_id(browser, "space-video"))
    box.select_by_index(1)
    assert 0 < browser.execute_script(bars) < whole
    Select(by_id(browser, "subset")).select_by_value("unlabeled training")
    move(browser, 0.0)
    label = by_id(browser, "bars").get_attribute("aria-label")
    assert "ground truth" in label and "teacher's pseudo labels, iteration" in label and numbers(browser)[0] > 0
    end = numbers(browser)[1]
    Select(by_id(browser, "earlier")).select_by_value("all")
    assert numbers(browser)[1] > end


@pytest.fixture(scope="session")
def warned(trained_runs, tmp_path_factory):
    """A run whose watch has warned of pseudo segments that fill whole videos."""
    folder = shutil.copytree(trained_runs[0], tmp_path_factory.mktemp("warned") / "run")
    content = json.loads((folder / WATCH).read_text())
    message = "share of videos that a single class fills: 1, where the labeled videos have 0. What to do: look at them"
    content["warnings"] = [{"iteration": 8, "quantity": "one_class", "message": message}]
    content |= {"videos": 100, "of": 100}
    for quantity in content["quantities"]:
        if quantity["name"] == "one_class":
            quantity |= {"found": 1.0, "outside": True}
    (folder / WATCH).write_text(json.dumps(content))
    return folder


def test_warnings_of_the_watch(browser, show, trained_runs, warned, tmp_path):
    show(write_report([warned, trained_runs[1]], tmp_path / "report.html"))
    first, second = browser.find_elements(By.CSS_SELECTOR, "#pseudo .watch")
    assert "Warning at iteration 8: share of videos that a single class fills: 1" in first.text
    assert "No warning." not in first.text and "No warning." in second.text
    rows = [row.text for row in first.find_elements(By.CSS_SELECTOR, "tbody tr") if "outside" in row.text]
    assert "share of videos that a single class fills 1 0 0 – 0.1 outside" in rows
    assert "1 warning, see Pseudo labels" in by_id(browser, "about").text
    first.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert len(first.find_elements(By.CSS_SELECTOR, "details tbody tr")) > 0


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_wider_than_the_screen(browser, show, large, trained_runs, warned, tmp_path, size):
    pages = [large[0], write_report([*trained_runs, warned], tmp_path / "report.html")]
    for page in pages:
        show(page, size)
        wide = browser.execute_script(
            "return [...document.querySelectorAll('body *')].filter((node) => !node.closest('.scroll')"
            " && node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.outerHTML.slice(0, 80))"
        )
        assert wide == [] and browser.execute_script("return document.documentElement.scrollWidth") <= SIZES[size]


@pytest.mark.skipif(not SCREENSHOTS, reason="pictures of the documentation: ACTIONFORMER_NT_SCREENSHOTS=1 makes them")
@pytest.mark.parametrize("size", SIZES)
def test_screenshots(browser, show, trained_runs, tmp_path, size):
    page = write_report(trained_runs, tmp_path / "report.html")
    show(page, size)
    IMAGES.mkdir(exist_ok=True)
    for section in ("map", "errors", "space", "embeddings", "timeline") if size == "desktop" else ("map", "timeline"):
        if section == "timeline":
            Select(by_id(browser, "subset")).select_by_value("unlabeled training")
            move(browser, 0.2)
        if section == "space":
            Select(by_id(browser, "space-moment")).select_by_index(1)
        browser.execute_script(
            "document.documentElement.style.scrollBehavior = 'auto';"
            "document.getElementById(arguments[0]).scrollIntoView()",
            section,
        )
        browser.save_screenshot(str(IMAGES / f"report_{section}_{size}.png"))

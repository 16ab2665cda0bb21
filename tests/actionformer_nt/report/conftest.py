"""Run folders to report on: trained ones on synthetic data, and written ones of any size. A browser for the page."""

import copy
import json
import os
import shutil

import numpy as np
import pytest
import yaml

from actionformer_nt import run as semi_run
from actionformer_nt.protocol import splits
from libs.core import load_config
from libs.datasets.annotations import Event, Video, read_annotations
from libs.datasets.simulate import Simulation, simulate
from libs.evaluation.average_precision import evaluate_detections, ground_truth
from libs.evaluation.detections import make_detections, write_ground_truth, write_results
from libs.evaluation.tables import result_to_dict
from libs.training.run_folder import GROUND_TRUTH

SCREENSHOTS = os.environ.get("ACTIONFORMER_NT_SCREENSHOTS", "")  # "1": the browser test writes docs/images
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory):
    """Folders of two semi-supervised runs that share their burn-in; longer ones where screenshots are asked for."""
    folder = tmp_path_factory.mktemp("trained")
    size = {"num_train": 24, "num_test": 10} if SCREENSHOTS else {"num_train": 6, "num_test": 3}
    seconds = (40.0, 80.0) if SCREENSHOTS else (10.0, 16.0)
    simulate(folder / "data", Simulation(num_classes=6, channels=32, duration=seconds, **size))
    content = splits.make_splits(
        read_annotations(folder / "data/annotations.json"), ["training"], kind="stratified", ratios=[0.34]
    )
    splits.write_splits(folder / "split.json", content)
    burn_in, iterations = (160, 160) if SCREENSHOTS else (6, 4)
    raw = {
        "dataset_name": "generic", "train_split": ["training"], "val_split": ["test"], "devices": ["cpu"],
        "plugins": ["actionformer_nt"], "output_folder": str(folder),
        "dataset": {
            "json_file": str(folder / "data/annotations.json"), "feat_folder": str(folder / "data/features"),
            "file_prefix": None, "file_ext": ".npy", "num_classes": 6, "input_dim": 32, "feat_stride": 4,
            "num_frames": 16, "max_seq_len": 640 if SCREENSHOTS else 128, "tiou_thresholds": [0.3, 0.5, 0.7],
        },
        "model": {
            "backbone_arch": [1, 1, 3], "regression_range": [[0, 4], [4, 8], [8, 16], [16, 10000]],
            "n_mha_win_size": 9, "n_head": 4, "embd_dim": 32, "fpn_dim": 32, "head_dim": 32,
        },
        "opt": {"learning_rate": 1e-3, "weight_decay": 0.05},
        "loader": {"batch_size": 2, "num_workers": 0},
        "train_cfg": {"init_loss_norm": 100, "clip_grad_l2norm": 1.0, "ema_ramp": True},
        "test_cfg": {"max_seg_num": 100, "min_score": 0.001},
        "semi_cfg": {
            "split": {"file": str(folder / "split.json"), "ratio": 0.17 if SCREENSHOTS else 0.34},
            "method": "target", "burn_in": burn_in, "iterations": iterations, "warmup_iterations": burn_in // 5,
            "log_every": 10 if SCREENSHOTS else 1, "log_hidden": True,
            "samples": {"videos": 8, "moments": 2},
            "pseudo": {"threshold": 0.2 if SCREENSHOTS else 0.01, "temperature": 2.0},
        },
    }  # fmt: skip
    found = []
    for method in ("target", "nt"):
        own = copy.deepcopy(raw)
        own["semi_cfg"]["method"] = method
        if found:
            own["semi_cfg"]["burn_in_checkpoint"] = str(found[0] / semi_run.BURN_IN)
        path = folder / f"{method}.yaml"
        path.write_text(yaml.safe_dump(own))
        found.append(semi_run.train(load_config(path), folder / method, progress=False))
        semi_run.evaluate(load_config(path), found[-1], progress=False)
    return found


def write_run(folder, *, videos=4, detections=6, classes=3, seed=0, external=None, name="class{}", subsets=("test",)):
    """A supervised run folder with random detections, made without training."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    names = {c: name.format(c) for c in range(classes)}
    truth = [
        Video(f"video_{v:03d}", subsets[v % len(subsets)], 100.0, 30.0, tuple(
            Event(float(s), float(s + 8), int(rng.integers(classes))) for s in rng.uniform(0, 90, 5)
        ))
        for v in range(videos)
    ]  # fmt: skip
    events = [(v.id, e.start + d, e.end + d, e.label_id) for v in truth for e in v.events for d in rng.normal(0, 2, 1)]
    ids = np.repeat([v.id for v in truth], detections)
    start = rng.uniform(0, 90, len(ids))
    columns = [ids, start, start + rng.uniform(1, 10, len(ids)), rng.integers(classes, size=len(ids))]
    columns = [
        np.concatenate([np.array(a, dtype=object), b]) for a, b in zip(zip(*events, strict=True), columns, strict=True)
    ]
    found = make_detections(*columns[:3], columns[3].astype(int), rng.uniform(0, 1, len(columns[0])))
    write_ground_truth(folder / GROUND_TRUTH, truth, names)
    provenance = {"weights": "ema", "absent_labels": "reference"} | ({"external_scores": external} if external else {})
    write_results(folder / "last_ema_detections.json", found, names, provenance=provenance)
    result = evaluate_detections(ground_truth(truth), found, tiou=[0.3, 0.5, 0.7])
    metrics = result_to_dict(result, names) | {"provenance": provenance}
    (folder / "last_ema_metrics.json").write_text(json.dumps(metrics))
    config = {
        "model_name": "LocPointTransformer", "init_rand_seed": 7, "dataset": {"json_file": "x/annotations.json"},
        "test_cfg": {"ext_score_file": external},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    records = [{"epoch": e, "lr": 1e-3 / e, "cls_loss": 1 / e, "final_loss": 2 / e, "seconds": 1} for e in range(1, 31)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return found, truth, result


@pytest.fixture(scope="session", name="write_run")
def _write_run():
    return write_run


@pytest.fixture(scope="session")
def browser():
    """Chromium or Chrome, or the test is skipped (it fails where ACTIONFORMER_NT_BROWSER=required)."""
    from selenium import webdriver

    binary, driver = next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")
    if binary is None or driver is None:
        reason = "no chromium with chromedriver found (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("ACTIONFORMER_NT_BROWSER") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield found
    found.quit()


@pytest.fixture
def show(browser):
    """Opens a page at a size of its inside, and waits until it is drawn. From then on to the end of the test the
    console must stay silent and nothing be loaded."""
    from selenium.webdriver.support.ui import WebDriverWait

    def assert_silent():
        assert browser.get_log("browser") == []
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0

    def show(page, size="desktop"):
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(page.resolve().as_uri())
        WebDriverWait(browser, 20, poll_frequency=0.05).until(
            lambda _: browser.execute_script("return document.documentElement.dataset.ready") == "yes"
        )
        assert_silent()

    yield show
    assert_silent()

"""Every command of the README and of docs/ runs as it stands there, in an empty folder, on small data and networks.

What is changed for that is in SMALL, which is appended as `--set`, in the data, and a study's number of runs.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from actionformer_nt.commands import main as cli
from actionformer_nt.protocol.splits import make_splits, read_split, write_splits
from libs.datasets.annotations import read_annotations
from libs.datasets.simulate import Simulation, simulate

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
SMALL = {
    "opt.epochs": 1, "opt.warmup_epochs": 1, "loader.batch_size": 2, "loader.num_workers": 0, "devices": ["cpu"],
    "model.embd_dim": 8, "dataset.max_seq_len": 576,
}  # fmt: skip
SMALL_DETECTOR = SMALL | {"model.fpn_dim": 8, "model.head_dim": 8}
SMALL_SPOT = SMALL | {"model.n_head": 2, "model.mask_dims": [8], "semi_cfg.pretrain": 1, "dataset.max_seq_len": 32}
SMALL_SEMI = {"semi_cfg.burn_in": 2, "semi_cfg.iterations": 2, "semi_cfg.warmup_iterations": 1}
WITH_SET = ("train", "eval", "predict", "check-data", "study")


def blocks(page: str, language: str) -> list[str]:
    return [text for found, text in FENCE.findall((ROOT / page).read_text()) if found == language]


def commands(page: str) -> list[str]:
    lines = "".join(blocks(page, "bash")).splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def pages() -> list[str]:
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [str(page.relative_to(ROOT)) for page in found]


def base_of(config: str) -> dict:
    raw = yaml.safe_load(Path(config).read_text())
    return base_of(raw["base"]) if "base" in raw else raw


def small(config: str) -> list[str]:
    """--set arguments that make a configuration fit for a test."""
    raw = base_of(config)
    keys = SMALL_SPOT if raw.get("model_name") == "SPOT" else SMALL_DETECTOR
    if "stages" in raw.get("semi_cfg", {}):
        stages = [stage | {"iterations": 2} for stage in raw["semi_cfg"]["stages"]]
        keys = keys | {"semi_cfg.stages": stages, "semi_cfg.warmup_iterations": 1}
        keys.pop("semi_cfg.pretrain", None)
    elif "semi_cfg" in raw:
        keys = keys | SMALL_SEMI
    else:
        keys = {key: value for key, value in keys.items() if not key.startswith("semi_cfg")}
    return [word for key, value in keys.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def plant(config: str) -> None:
    """Small data at the places where a configuration expects its data."""
    raw = base_of(config)
    data = raw["dataset"]
    rng = np.random.default_rng(0)
    training = [f"{raw['train_split'][0]}_{i}" for i in range(10)]
    names = {i: f"class{i}" for i in range(data["num_classes"])}
    split = raw.get("semi_cfg", {}).get("split", {}).get("file")
    if split and Path(split).is_file():
        content = json.loads(Path(split).read_text())
        training, names = content["videos"], {i: label for label, i in content["label_ids"].items()}
    folder = Path(data["feat_folder"])
    folder.mkdir(parents=True, exist_ok=True)
    Path(data["json_file"]).parent.mkdir(parents=True, exist_ok=True)
    database = {}
    for number, video in enumerate([*training, "unseen_0", "unseen_1"]):
        labels = [c % len(names) for c in range(number, number + 2)] if number < len(training) else list(names)
        if not split and number < len(training):
            labels = list(names)
        events = [
            {"segment": [0.3 + c / len(names), 1.2 + c / len(names)], "label": names[c], "label_id": c} for c in labels
        ]
        subset = raw["train_split" if number < len(training) else "val_split"][0]
        database[video] = {"subset": subset, "duration": 3.0, "fps": 30.0, "annotations": events}
        steps = 22 if data["feat_stride"] == 4 else 60
        feats = rng.standard_normal((steps, data["input_dim"])).astype(np.float32)
        np.save(folder / f"{data.get('file_prefix') or ''}{video}{data.get('file_ext', '.npy')}", feats)
    Path(data["json_file"]).write_text(json.dumps({"database": database}))
    if split and not Path(split).exists():
        content = make_splits(read_annotations(data["json_file"]), raw["train_split"], kind="uniform", ratios=[0.1])
        write_splits(split, content)


def execute(command: str) -> None:
    """One line as a shell would take it; commands of this project in this process."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        subprocess.run(["make", "--dry-run", "-C", str(ROOT), *words[1:]], check=True, stdout=subprocess.DEVNULL)
        return
    if words[0] == "python":
        tool = words[1]
        assert tool.startswith("tools/") and (ROOT / tool).is_file(), command
        words = ["actionformer-nt", Path(tool).stem, *words[2:]]
    if words[0] == "actionformer-nt":
        _call(words[1:])
        return
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    extra = " ".join(map(shlex.quote, small(words[3]))) if words[0] == "torchrun" else ""
    done = subprocess.run(
        ["bash", "-ec", f"{command} {extra}"], env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}"


def _call(words: list[str]) -> None:
    extra = small(words[1]) if words[0] in WITH_SET else []
    if words[0] == "study":  # two of its runs
        study = yaml.safe_load(Path(words[1]).read_text())
        few = {
            "methods": study["methods"][::3],
            "ratios": study["ratios"][:1],
            "folds": [0],
            "output": "few",
            "baseline": "labeled_only",
        }
        words[1] = str(Path("few.yaml"))
        Path(words[1]).write_text(yaml.safe_dump(study | few))
    if extra and "--set" in words:  # what the command itself says is last, and wins
        extra, words = [], [words[0], words[1], *extra, *words[2:]]
    status = cli.main([*words, *extra])
    assert status == 0, f"{shlex.join(words)}: exit status {status}"


@pytest.fixture
def empty_folder(tmp_path, monkeypatch):
    """An empty folder with the repository's configs and tools, as a clone has them."""
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def _demo_run(*_):
    plant("configs/demo.yaml")
    execute("actionformer-nt train configs/demo.yaml --output supervised")


def _before_report(folder):
    plant("configs/demo.yaml")
    for name in ("first", "second"):
        execute(f"actionformer-nt train configs/demo.yaml --output {name} --set output_folder=ckpt")
        execute(f"actionformer-nt eval configs/demo.yaml ckpt/demo_{name}")
        Path(f"ckpt/demo_{name}").rename(f"ckpt/{name}")


def _before_semi(folder):
    plant("configs/semi/hapt_05.yaml")


def _before_released(folder):
    plant("configs/thumos_i3d.yaml")
    execute("actionformer-nt train configs/thumos_i3d.yaml --output released")
    Path("ckpt/thumos_i3d_released").rename("pretrained")
    Path("pretrained/thumos_i3d_reproduce").mkdir()
    Path("pretrained/last.pth.tar").rename("pretrained/thumos_i3d_reproduce/epoch_034.pth.tar")


def _before_method(folder):
    plant("configs/semi/demo.yaml")
    Path("my_methods").mkdir()
    Path("my_methods/cautious.py").write_text(blocks("docs/add-a-method.md", "python")[0])


def _before_video(folder):
    make_data = runpy.run_path(str(ROOT / "tools" / "demo_video.py"))["make_data"]
    make_data(videos=4, seconds=8)


def _before_convert(folder):
    shutil.copytree(ROOT / "tests" / "data" / "convert", folder, dirs_exist_ok=True)


BEFORE = {
    "README.md": lambda folder: plant("configs/demo.yaml"),
    "docs/add-a-method.md": _before_method,
    "docs/check-data.md": lambda folder: plant("configs/gtea.yaml"),
    "docs/coming-from-actionformer.md": _before_released,
    "docs/commands.md": _demo_run,
    "docs/convert.md": _before_convert,
    "docs/predict.md": _demo_run,
    "docs/quick-start.md": lambda folder: None,  # its first command makes the data
    "docs/report.md": _before_report,
    "docs/semi-supervised.md": _before_semi,
    "docs/video.md": _before_video,
    "docs/training.md": lambda folder: plant("configs/thumos_i3d.yaml"),
}
OWN_DATA = "docs/own-data.md"


def test_every_page_with_commands_is_run():
    assert {page for page in pages() if commands(page)} == {*BEFORE, OWN_DATA}


@pytest.mark.parametrize("page", pages())
def test_commands_stand_in_bash_blocks(page):
    text = FENCE.sub("", (ROOT / page).read_text())
    assert not re.findall(r"^\s*(?:actionformer-nt|python \w+/|torchrun|make|pip) .*$", text, re.MULTILINE)


@pytest.mark.parametrize("page", sorted(BEFORE))
def test_commands_run(page, empty_folder):
    BEFORE[page](empty_folder)
    for command in commands(page):
        if "tools/evaluate.py" in command:  # the files that it names, from the run before it
            made = next(Path("ckpt").glob("*/*detections*.json"))
            Path("results.json").write_bytes(made.read_bytes())
            Path("thumos14.json").write_bytes(Path("data/thumos/annotations/thumos14.json").read_bytes())
        execute(command)
    for code in blocks(page, "python"):
        if page != "docs/add-a-method.md":
            exec(code.replace("video_test_0000", "unseen_0"), {"__name__": "page"})
    for text in blocks(page, "yaml"):
        assert yaml.safe_load(text)


def test_converted_files_are_where_configurations_look_for_them(empty_folder):
    _before_convert(empty_folder)
    for command in commands("docs/convert.md"):
        execute(command)
    configs = [*Path("configs").glob("epic_*.yaml"), *Path("configs").glob("ego4d_*.yaml")]
    assert len(configs) == 8
    for config in configs:
        raw = base_of(str(config))
        annotations = read_annotations(raw["dataset"]["json_file"])
        assert annotations.of_subsets(raw["train_split"]) and annotations.of_subsets(raw["val_split"])


def test_the_study_of_a_method_of_ones_own(empty_folder):
    """docs/add-a-method.md, by the installed command, whose folder is not on Python's path."""
    _before_method(empty_folder)
    (study,) = (yaml.safe_load(text) for text in blocks("docs/add-a-method.md", "yaml"))
    methods = [name for name in study["methods"] if name == "labeled_only" or "." in name]
    few = {"methods": methods, "folds": [0], "baseline": "labeled_only"}
    Path("few.yaml").write_text(yaml.safe_dump(study | few))
    execute(f"{Path(sys.executable).parent}/actionformer-nt study few.yaml {shlex.join(small('few.yaml'))}")
    assert "my_methods.cautious" in Path("runs/cautious/few.md").read_text()


@pytest.mark.parametrize(
    "page", [str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))] + ["README.md"]
)
def test_links_and_named_files_exist(page):
    text = (ROOT / page).read_text()
    here = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (here / target).exists(), f"{page}: {target}"
    for name in re.findall(r"`((?:libs|actionformer_nt|tools|benchmarks|configs|csrc|docs)/[\w./-]*\w)`", text):
        assert (ROOT / name).exists(), f"{page}: {name}"
    for name in re.findall(r"\bpython ((?:benchmarks|tools)/\S+\.py)", text):
        assert (ROOT / name).is_file(), f"{page}: {name}"


def test_a_newcomer_follows_the_page_on_own_data(tmp_path, monkeypatch, capsys):
    """From spreadsheets and features to a report, with what the page says alone, in its order."""
    monkeypatch.chdir(tmp_path)
    for key, value in {"opt.epochs": 30, "model.embd_dim": 32, "model.fpn_dim": 32, "model.head_dim": 32}.items():
        monkeypatch.setitem(SMALL_DETECTOR, key, value)
    made = simulate("made", Simulation(num_train=8, num_test=3, duration=(40.0, 50.0), difficulty=0.0))
    Path(made["feat_folder"]).rename("features")
    database = json.loads(Path(made["json_file"]).read_text())["database"]
    rows = [
        (video, *event["segment"], event["label"])
        for video, entry in database.items()
        for event in entry["annotations"]
    ]
    pd.DataFrame(rows, columns=["video", "start", "end", "label"]).to_csv("events.csv", index=False)
    unlabeled = [f"video_training_{i:04d}" for i in range(4, 8)]
    rows = [
        (f"{video}.mp4", entry["subset"], entry["duration"], entry["fps"], "no" if video in unlabeled else "")
        for video, entry in database.items()
    ]
    pd.DataFrame(rows, columns=["video", "subset", "duration", "fps", "labeled"]).to_csv("videos.csv", index=False)
    Path("new_features").mkdir()
    unseen = np.load("features/video_test_0000.npy")
    np.save("new_features/unseen.npy", unseen[:150])

    exec(blocks(OWN_DATA, "python")[0], {"__name__": "page"})
    assert "8 classes" in capsys.readouterr().out
    own, semi = blocks(OWN_DATA, "yaml")
    Path("my.yaml").write_text(own)
    Path("semi.yaml").write_text(own + semi)
    for command in commands(OWN_DATA):
        execute(command)

    assert read_annotations("annotations.json").label_ids == read_annotations("made/annotations.json").label_ids
    results = json.loads(Path("predictions/predictions.json").read_text())["results"]
    assert list(results) == ["unseen"]
    assert (Path("predictions") / "unseen.srt").is_file() and (Path("predictions") / "unseen.png").is_file()
    page = Path("report.html").read_text()
    assert "semi_labels" in page and "semi_few" in page
    split = read_split("split.json", None)
    assert sorted(split.unlabeled) == unlabeled and len(split.labeled) == 4


def test_the_script_for_ones_own_sheets_keeps_ids_and_names_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = blocks(OWN_DATA, "python")[0]
    videos = (
        "video,subset,duration,fps,labeled\n0301.mp4,training,9,25,\n0302,training,9,25,no\n1e5.MP4,test,9,25,yes\n"
    )
    Path("videos.csv").write_bytes(b"\xef\xbb\xbf" + videos.encode())
    events = "video,start,end,label\n0301,1,2.5,null\n0301.mp4,3,4,1\n1e5.MP4,0.5,2,NA\n"
    Path("events.csv").write_text(events)
    exec(code, {"__name__": "page"})
    assert "3 classes: 1 NA null" in capsys.readouterr().out
    found = {video.id: video for video in read_annotations("annotations.json").videos}
    assert [e.label_id for e in found["0301"].events] == [2, 0] and not found["0302"].labeled
    assert found["1e5"].events[0].label_id == 1
    for sheet, text, words in (
        ("events.csv", events + "0301,5,6,\n", "events without a label"),
        ("events.csv", events + "0999,5,6,1\n", "events of videos that videos.csv does not have"),
        ("videos.csv", videos + "0301,test,9,25,\n", "videos that stand twice"),
    ):
        before = Path(sheet).read_bytes()
        Path(sheet).write_text(text)
        with pytest.raises(AssertionError, match=words):
            exec(code, {"__name__": "page"})
        Path(sheet).write_bytes(before)

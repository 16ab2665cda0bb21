"""Files in tests/data/convert are made up in the published formats; see the README there."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from actionformer_nt.commands.main import main
from libs.core import load_config
from libs.datasets import make_dataset
from libs.datasets.annotations import read_annotations
from libs.datasets.convert import FORMATS, Options, convert

ROOT = Path(__file__).parents[3]
RAW = ROOT / "tests" / "data" / "convert"
EPIC = [f"EPIC_100_{name}.csv" for name in ("train", "validation", "video_info")]
EGO4D = [f"moments_{name}.json" for name in ("train", "val", "test_unannotated")]
CONFIGS = sorted([*ROOT.glob("configs/epic_*.yaml"), *ROOT.glob("configs/ego4d_*.yaml")])


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A folder with the files, as the current one."""
    shutil.copytree(RAW, tmp_path / "raw")
    monkeypatch.chdir(tmp_path / "raw")
    return tmp_path / "raw"


def change(path, old, new):
    text = Path(path).read_text(encoding="utf-8")
    assert old in text
    Path(path).write_text(text.replace(old, new), encoding="utf-8")


def events(entry):
    return [(*event["segment"], event["label"], event["label_id"]) for event in entry["annotations"]]


def test_epic(raw):
    """The expected values are read off the tables by hand."""
    database = convert(EPIC, options=Options(label="verb", classes="EPIC_100_verb_classes.csv")).database
    assert {video: entry["subset"] for video, entry in database.items()} == {
        "P90_01": "training", "P90_02": "training", "P91_101": "validation",
    }  # fmt: skip
    assert (database["P90_01"]["duration"], database["P90_01"]["fps"]) == (70.5705, 59.9400599400599)
    assert events(database["P90_01"]) == [(0.54, 2.23, "take", 0), (2.9, 4.0, "put", 1), (62.5, 65.05, "wash", 2)]
    assert events(database["P90_02"]) == [(4200.0, 4203.1, "take", 0)]  # an hour and ten minutes on
    assert events(database["P91_101"]) == [(0.0, 1.89, "take", 0), (1.56, 2.45, "flip", 96)]
    nouns = convert(EPIC, options=Options(label="noun")).database
    assert events(nouns["P90_01"]) == [
        (0.54, 2.23, "noun 13", 13),
        (2.9, 4.0, "noun 13", 13),
        (62.5, 65.05, "noun 13", 13),
    ]
    assert events(nouns["P90_02"]) == [(4200.0, 4203.1, "noun 2", 2)]


def test_ego4d_is_what_actionformer_makes_of_the_files(raw):
    """Figures computed by the public ActionFormer's tools/convert_ego4d_trainval.py on these two files, with its own
    numbers of the classes. Of two annotators' moments with the same times it writes both."""
    wash, dough = ("wash_hands", 103), ("cut_dough", 28)
    vegetable = ('"cut_/_chop_/_slice_a_vegetable,_fruit,_or_meat"', 1)
    grass = ("cut_/_trim_grass_with_other_tools", 27)
    expected = {
        "clip-a0": ("training", 480.0, 30.0, [(12.35, 20.5, *vegetable), (30.0, 33.3, *wash), (30.0, 33.3, *wash),
                                              (30.4, 33.1, *wash), (470.25, 482.0, *dough)]),
        "clip-a1": ("training", 480.53, 30.0, [(13.17, 16.83, *dough)]),
        "clip-b0": ("training", 180.18, 23.98, [(0.94, 15.44, "arrange_/_organize_other_items", 9)]),
        "clip-c0": ("validation", 300.8, 30.0, [(5.4, 8.4, *wash), (90.4, 240.4, *grass)]),
        "clip-c1": ("validation", 10.13, 30.0, []),
    }  # fmt: skip
    numbers = {label: number for *_, found in expected.values() for *_, label, number in found}
    Path("classes.txt").write_text("".join(f"{number:03}\t{label}\n" for label, number in numbers.items()))
    result = convert(EGO4D[:2], options=Options(classes="classes.txt"))
    expected["clip-a0"][3].remove((30.0, 33.3, *wash))
    found = {
        clip: (entry["subset"], entry["duration"], entry["fps"], events(entry))
        for clip, entry in result.database.items()
    }
    assert found == expected


def test_ego4d_numbers_classes_as_actionformer_does(raw):
    """Alphabetical order, quotation marks and brackets included: pairs of neighbours in ActionFormer's list."""
    neighbours = [
        '"try-out_/_wear_clothing_items_(e.g._shirt,_jeans,_sweater)"', "arrange_/_organize_clothes_in_closet/dresser",
        "cut_/_trim_grass_with_other_tools", "cut_dough", "put_away_(or_take_out)_ingredients_in_storage",
        "put_food_into_the_oven_to_bake", "turn-on_/_light_the_stove_burner", "use_a_laptop_/_computer",
    ]  # fmt: skip
    content = json.loads(Path(EGO4D[1]).read_text())
    moments = content["videos"][0]["clips"][0]["annotations"][0]["labels"]
    moments[:] = [moments[0] | {"label": label} for label in reversed(neighbours)]
    Path(EGO4D[1]).write_text(json.dumps(content))
    made = events(convert(EGO4D[1:2]).database["clip-c0"])
    assert [label for *_, label, _ in sorted(made, key=lambda event: event[-1])] == neighbours
    assert sorted(number for *_, number in made) == list(range(8))


def test_ego4d_times_of_the_clip_come_back(raw):
    """Seconds of the clip are those of its features less `offset`, and with a grid of 0 there is no offset."""
    plain = convert(EGO4D, options=Options(grid=0)).database
    for grid in (1, 8, 16, 100):
        database = convert(EGO4D, options=Options(grid=grid)).database
        for clip, entry in database.items():
            assert 0 <= entry["offset"] < grid / 23 and plain[clip]["offset"] == 0
            assert 0 <= entry["duration"] - plain[clip]["duration"] - entry["offset"] < grid / 23 + 0.01
            frames = entry["duration"] * entry["fps"]
            assert abs(frames / grid - round(frames / grid)) * grid < 0.005 * (entry["fps"] + entry["duration"])
            for (start, end, *label), (start0, end0, *label0) in zip(events(entry), events(plain[clip]), strict=True):
                assert label == label0
                assert start - entry["offset"] == pytest.approx(start0, abs=0.02)
                assert end - entry["offset"] == pytest.approx(end0, abs=0.02)
    assert plain["clip-a1"]["duration"] == 480.0 and events(plain["clip-a1"])[0][:2] == (13.07, 16.73)
    assert plain["clip-d0"] == {"subset": "test", "duration": 300.0, "fps": 30.0, "offset": 0.0, "annotations": []}


def test_everything_that_was_dropped_or_changed_is_listed(raw, capsys):
    with open(EPIC[0], "a", encoding="utf-8") as file:
        file.write(Path(EPIC[0]).read_text().splitlines()[1] + "\n")
    assert main(["convert", *EPIC, "epic.json", "--label", "verb", "--log", "epic.log"]) == 0
    reasons = [line.split("\t") for line in Path("epic.log").read_text(encoding="utf-8").splitlines()]
    assert [(reason.partition(",")[2].strip(), where) for reason, where, _ in reasons] == [
        ("it ends before or when it starts", "EPIC_100_train.csv, line 5, P90_01_2"),
        ("it ends before or when it starts", "EPIC_100_train.csv, line 7, P90_02_1"),
        ("its narration_id was there before", "EPIC_100_train.csv, line 8, P90_01_0"),
        ("it has no actions in these files", "EPIC_100_video_info.csv, P92_03"),
    ]
    shown = capsys.readouterr().err
    assert "2 times: action dropped, it ends before or when it starts: EPIC_100_train.csv, line 5, P90_01_2" in shown
    with open(EPIC[0], encoding="utf-8") as file:  # every row is in the result or in the list
        rows = len(list(csv.reader(file))) - 1
    made = read_annotations("epic.json").of_subsets(["training"])
    assert sum(len(video.events) for video in made) + 3 == rows

    assert main(["convert", *EGO4D, "ego4d.json", "--log", "ego4d.log"]) == 0
    lines = Path("ego4d.log").read_text(encoding="utf-8").splitlines()
    for reason, place in (
        ("clip changed, it starts before its video", "clip-a0"),
        ("moment dropped, it is not primary", "clip-a0"),
        ("moment dropped, it is shorter than 0.25 s", "clip-a0"),
        ("moment dropped, its label and times were there before", "clip-a0"),
        ("moment dropped, it ends before it starts", "clip-a1"),
        ("clip dropped, its seconds and frames do not agree", "clip-b1"),
    ):
        assert [line for line in lines if line.startswith(reason) and f"clip '{place}'" in line], reason
    assert len(lines) == 6
    again = convert([*EGO4D, EGO4D[1]])
    assert again.database == json.loads(Path("ego4d.json").read_text())["database"]
    assert [note.where.rpartition(" ")[2] for note in again.reasons()["clip dropped, it was there before"]] == [
        "'clip-c0'", "'clip-c1'",
    ]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configurations_read_what_is_made(config, raw):
    """From the published formats to a data set of the configuration's subsets, at the place that it names."""
    assert "actionformer-nt convert" in config.read_text(encoding="utf-8")
    settings = load_config(config)
    data = settings["dataset"]
    if settings["dataset_name"] == "epic":
        label = config.stem.rpartition("_")[2]
        arguments = [*EPIC, "--label", label, "--classes", f"EPIC_100_{label}_classes.csv"]
        ids, videos = ({0, 1, 2, 96} if label == "verb" else {2, 13}), [["P90_01", "P90_02"], ["P91_101"]]
    else:  # all of the 110 classes
        content = json.loads(Path(EGO4D[0]).read_text())
        moments = content["videos"][0]["clips"][0]["annotations"][0]["labels"]
        moments[:] = [moments[0] | {"label": f"activity {i}"} for i in range(110 - 4)]
        Path(EGO4D[0]).write_text(json.dumps(content))
        arguments = EGO4D
        ids, videos = set(range(110)), [["clip-a0", "clip-a1", "clip-b0"], ["clip-c0", "clip-c1"]]
    inputs, options = [a for a in arguments if a in EPIC + EGO4D], [a for a in arguments if a not in EPIC + EGO4D]
    assert main(["-q", "convert", *inputs, data["json_file"], *options]) == 0

    folders = data["feat_folder"] if isinstance(data["feat_folder"], list) else [data["feat_folder"]]
    channels = data["input_dim"] if isinstance(data["input_dim"], list) else [data["input_dim"]]
    if len(folders) > len(channels):  # joined features, of which only the sum is in the configuration
        channels = [channels[0] - 256, 256]
    for folder, width in zip(folders, channels, strict=True):
        Path(folder).mkdir(parents=True)
        for video in read_annotations(data["json_file"]).videos:
            features = np.zeros((50, width), np.float32)
            path = Path(folder) / f"{video.id}{data['file_ext']}"
            np.savez(path, feats=features) if data["file_ext"] == ".npz" else np.save(path, features)
    for is_training, key in ((True, "train_split"), (False, "val_split")):
        made = make_dataset(settings["dataset_name"], is_training, settings[key], **data)
        assert [video.id for video in made.videos] == videos[not is_training]
        assert set(made.label_dict.values()) == ids
        assert made[0]["feats"].shape[0] == sum(channels)


def test_utf8_and_a_byte_order_mark(raw):
    change("EPIC_100_noun_classes.csv", '"cup"', '"crêpière"')
    for name in EPIC:
        Path(name).write_text("\ufeff" + Path(name).read_text(encoding="utf-8"), encoding="utf-8")
    arguments = ["--label", "noun", "--classes", "EPIC_100_noun_classes.csv"]
    assert main(["-q", "convert", *EPIC, "new/folder/out.json", *arguments]) == 0
    assert "crêpière" in Path("new/folder/out.json").read_bytes().decode("utf-8")
    assert read_annotations("new/folder/out.json").label_ids == {"crêpière": 13, "plate": 2}
    assert [path.name for path in Path("new/folder").iterdir()] == ["out.json"]


def test_an_existing_file_is_replaced_on_demand_only(raw, capsys):
    before = Path(EGO4D[1]).read_bytes()
    assert main(["convert", *EGO4D[:2]]) == 2  # OUT was forgotten: the second input would be it
    assert main(["convert", *EGO4D[:2], EGO4D[1], "--overwrite"]) == 2
    assert Path(EGO4D[1]).read_bytes() == before
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "the last argument" in errors[0] and "--overwrite" in errors[0]
    Path("out.json").write_text("old")
    assert main(["-q", "convert", *EGO4D[:2], "out.json"]) == 2 and Path("out.json").read_text() == "old"
    change(EGO4D[0], '"split": "train"', '"split": "trian"')
    assert main(["-q", "convert", *EGO4D[:2], "out.json", "--overwrite"]) == 2  # an error leaves the old file
    assert Path("out.json").read_text() == "old"
    assert main(["-q", "convert", EGO4D[1], "out.json", "--overwrite"]) == 0
    assert len(read_annotations("out.json").videos) == 2


def test_formats_are_recognized_by_content(raw):
    shutil.copy(EGO4D[0], "a.csv")
    shutil.copy(EPIC[1], "val.txt")
    assert "clip-a0" in convert(["a.csv"]).database
    assert "P91_101" in convert(["val.txt", EPIC[2]], options=Options(label="verb")).database
    Path("other.json").write_text('{"database": {}}')
    Path("binary.pkl").write_bytes(b"\x80\x04\xff\xfe")
    for paths, words in (
        (["other.json"], ["other.json: not a file of a known format", *FORMATS]),
        ([EGO4D[0], "binary.pkl"], ["binary.pkl: not a file of a known format", *FORMATS]),
        ([EGO4D[0], EPIC[0]], ["moments_train.json", "EPIC_100_train.csv", "different formats"]),
    ):
        with pytest.raises(ValueError) as error:
            convert(paths)
        assert all(word in str(error.value) for word in words), error.value
    with pytest.raises(ValueError, match=r"--from thumos: not a known format(?s:.*)epic(?s:.*)ego4d"):
        convert(EPIC, source_format="thumos")
    with pytest.raises(ValueError, match="--grid: not an option of the format epic, which has --label, --classes"):
        convert(EPIC, options=Options(label="verb", grid=16))
    with pytest.raises(FileNotFoundError, match=re.escape("none.csv")):
        convert([*EPIC, "none.csv"], options=Options(label="verb"))
    with pytest.raises(ValueError, match="no column video_id"):
        convert([EGO4D[0], *EPIC], source_format="epic", options=Options(label="verb"))


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (EPIC[0], "00:00:02.90", "2.90", ["EPIC_100_train.csv, line 3", "start_timestamp '2.90'", "00:01:02.34"]),
        (EPIC[0], "00:01:05.05", "00:01:65.05", ["line 4", "stop_timestamp '00:01:65.05'"]),
        (EPIC[0], "put-down,1,", "put-down,one,", ["line 3", "verb_class 'one'"]),
        (EPIC[0], "put-down,1,", "put-down,40,", ["line 3", "verb_class 40", "table of classes"]),
        (EPIC[0], "P90_02,01:10:04", "P90_03,01:10:04", ["line 7", "'P90_03'", "table of videos"]),
        (EPIC[1], "P91_101_1,P91,P91_101", "P91_101_1,P91,P90_01", ["validation.csv, line 3", "'P90_01'", "training"]),
        (EPIC[1], ",[2]", "", ["validation.csv, line 2", "14 cells, expected 15"]),
        (EPIC[1], "verb_class", "verb_klass", ["validation.csv", "no column verb_class", "verb_klass"]),
        (EPIC[2], "70.5705", "-1", ["video_info.csv, line 2", "duration '-1'"]),
        (EPIC[2], "59.9400599400599", "nan", ["video_info.csv, line 2", "fps 'nan'"]),
        ("EPIC_100_verb_classes.csv", '96,"flip"', '96,"wash"', ["verb_classes.csv, line 7", "'wash' is there twice"]),
        (EGO4D[0], '"split": "train"', '"split": "trian"', ["moments_train.json", "'video-a'", "'trian'", "val"]),
        (EGO4D[0], "500.1", '"500.1"', ["moments_train.json", "'clip-a1'", "'video_start_time' is '500.1'"]),
        (EGO4D[0], "503.7654321", "NaN", ["'clip-a1'", "'cut_dough'", "'video_end_time' is nan"]),
        (EGO4D[0], '"primary": false', '"primary": null', ["'clip-a0'", "'primary' is None, expected a bool"]),
        (EGO4D[0], '"labels"', '"language_queries"', ["'clip-a0'", "'labels' is None"]),
        (EGO4D[1], '"annotations"', '"annotation"', ["moments_val.json", "'clip-c0'", "'annotations' is None"]),
        (EGO4D[1], "clip-c0", "clip-a0", ["moments_val.json", "'clip-a0': the clip is in the subset training already"]),
        (EGO4D[1], '"videos"', '"vidoes"', ["moments_val.json", "not a file of a known format"]),
        (EGO4D[1], "}", "", ["moments_val.json", "broken JSON"]),
    ],
)
def test_mistakes_in_a_file_are_named(file, old, new, words, raw, capsys):
    change(file, old, new)
    arguments = EGO4D if file in EGO4D else EPIC
    options = [] if file in EGO4D else ["--label", "verb", "--classes", "EPIC_100_verb_classes.csv"]
    assert main(["-q", "convert", *arguments, "out.json", *options]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words), error
    assert not Path("out.json").exists()


def test_mistakes_in_a_call_are_named(raw):
    Path("classes.txt").write_text("wash_hands\ncut_dough\n")
    Path("twice.txt").write_text("0\twash_hands\n0\tcut_dough\n")
    shutil.copy(EPIC[1], "rows.csv")
    for paths, options, words in (
        (EPIC, {}, "--label is not given.*verb or noun"),
        ([*EPIC, "EPIC_100_verb_classes.csv"], {"label": "verb"}, "verb_classes.csv: a table of classes.*--classes"),
        (EPIC[:2], {"label": "verb"}, "EPIC_100_video_info.csv"),
        (EPIC[2:], {"label": "verb"}, "EPIC_100_train.csv"),
        (["rows.csv", EPIC[2]], {"label": "verb"}, "rows.csv.*'train' or 'val'"),
        (EGO4D, {"classes": "classes.txt"}, "label '.*' is not in the file of classes"),
        (EGO4D, {"classes": "twice.txt"}, "twice.txt.*id 0 is there twice"),
        (EGO4D, {"grid": -1}, "--grid -1"),
    ):
        with pytest.raises(ValueError, match=words):
            convert(paths, options=Options(**options))

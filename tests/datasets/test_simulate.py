import filecmp
import json

import numpy as np
import pytest

from libs.datasets.annotations import read_annotations
from libs.datasets.simulate import Simulation, simulate

SMALL = {"num_train": 6, "num_test": 3, "num_classes": 3, "channels": 16, "duration": (20.0, 30.0)}


def test_same_seed_same_files_whatever_the_number_of_processes(tmp_path):
    simulate(tmp_path / "a", Simulation(**SMALL), jobs=1)
    simulate(tmp_path / "b", Simulation(**SMALL), jobs=2)
    simulate(tmp_path / "c", Simulation(**SMALL, seed=1))
    names = sorted(p.name for p in (tmp_path / "a" / "features").iterdir())
    assert len(names) == 9
    match, mismatch, _ = filecmp.cmpfiles(
        tmp_path / "a" / "features", tmp_path / "b" / "features", names, shallow=False
    )
    assert match == names and not mismatch
    assert filecmp.cmp(tmp_path / "a" / "annotations.json", tmp_path / "b" / "annotations.json", shallow=False)
    assert not filecmp.cmp(tmp_path / "a" / "annotations.json", tmp_path / "c" / "annotations.json", shallow=False)
    assert json.loads((tmp_path / "a" / "simulation.json").read_text())["synthetic"] is True


def separability(folder):
    """Accuracy of the nearest class mean (of the training videos) on the middle steps of test events."""
    annotations = read_annotations(folder / "annotations.json")
    middles = {"training": [], "test": []}
    for video in annotations.videos:
        feats = np.load(folder / "features" / f"{video.id}.npy").astype(float)
        for event in video.events:
            step = int(((event.start + event.end) / 2 * 30 - 8) / 4)
            middles[video.subset].append((feats[min(step, len(feats) - 1)], event.label_id))
    means = np.stack([np.mean([f for f, y in middles["training"] if y == c], axis=0) for c in range(3)])
    return np.mean([np.argmin(((means - f) ** 2).sum(1)) == y for f, y in middles["test"]])


def test_difficulty_makes_classes_harder_to_tell(tmp_path):
    spec = SMALL | {"num_train": 12, "num_test": 8, "group_size": 3}
    simulate(tmp_path / "easy", Simulation(**spec, difficulty=0.0))
    simulate(tmp_path / "hard", Simulation(**spec, difficulty=1.0))
    easy, hard = separability(tmp_path / "easy"), separability(tmp_path / "hard")
    assert easy > 0.9 and hard < easy and hard > 1 / 3


def test_from_an_annotation_file(tmp_path):
    run = {"segment": [1, 5], "label": "run", "label_id": 2}
    database = {
        "x": {"subset": "Validation", "duration": 12.0, "fps": 25, "annotations": [run]},
        "y": {"subset": "Test", "duration": 8.0, "fps": 25},
    }
    source = tmp_path / "a.json"
    source.write_text(json.dumps({"database": database}))
    facts = simulate(tmp_path / "out", Simulation(channels=8), annotations=source)
    assert facts["num_classes"] == 3 and facts["splits"] == ["test", "validation"]
    assert np.load(tmp_path / "out" / "features" / "x.npy").shape == (((12 * 25 - 16) // 4) + 1, 8)
    assert json.loads((tmp_path / "out" / "annotations.json").read_text())["database"] == database


def test_mistakes(tmp_path):
    empty = tmp_path / "empty.json"
    empty.write_text('{"database": {"x": {"subset": "test"}}}')
    for source, word in ((empty, "no events"), (tmp_path / "none.json", "not found")):
        with pytest.raises((ValueError, FileNotFoundError), match=word):
            simulate(tmp_path / "out", Simulation(), annotations=source)
    assert not (tmp_path / "out").exists()
    for bad in ({"difficulty": 2}, {"num_train": 0}, {"duration": (5.0, 3.0)}):
        with pytest.raises(ValueError, match=str(next(iter(bad)))):
            Simulation(**bad)


def test_relative_folders_with_several_processes(tmp_path, monkeypatch):
    """joblib keeps its processes from one call to the next, also where the folder has changed between them."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        simulate("data", Simulation(num_train=2, num_test=1), jobs=2)
        assert len(list((tmp_path / name / "data" / "features").iterdir())) == 3

import json

import pytest

from actionformer_nt.protocol.splits import (
    make_splits,
    published_split,
    read_hidden,
    read_split,
    unlabeled_classes,
    write_splits,
)
from libs.datasets.annotations import read_annotations


@pytest.fixture
def annotations(tmp_path):
    """60 training videos of 6 classes (one of them rare), 4 without events, and a test video."""
    database = {}
    for i in range(60):
        label = 5 if i in (7, 31) else i % 5
        events = [] if i >= 56 else [{"segment": [0, 1], "label": f"c{label}", "label_id": label}]
        database[f"v{i}"] = {"subset": "Training", "duration": 5.0, "fps": 25, "annotations": events}
    database["t"] = {"subset": "test", "duration": 5.0, "fps": 25, "annotations": []}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"database": database}))
    return read_annotations(path)


def write(tmp_path, content):
    write_splits(tmp_path / "split.json", content)
    return tmp_path / "split.json"


@pytest.mark.parametrize("kind", ["stratified", "uniform"])
def test_nested_seeded_disjoint(annotations, tmp_path, kind):
    content = make_splits(annotations, ["training"], kind=kind, seed=3)
    assert content == make_splits(annotations, ["training"], kind=kind, seed=3)
    assert content != make_splits(annotations, ["training"], kind=kind, seed=4)
    path = write(tmp_path, content)
    first = set()
    for fold in range(5):
        smaller = set()
        for ratio, count in ((0.1, 6), (0.2, 12), (0.4, 24), (0.6, 36)):
            split = read_split(path, ratio, fold)
            assert len(split.labeled) == count and smaller <= set(split.labeled)
            assert not set(split.labeled) & set(split.unlabeled) and len({*split.labeled, *split.unlabeled}) == 60
            smaller = set(split.labeled)
        first.add(read_split(path, 0.1, fold).labeled)
    assert len(first) == 5 and split.label_ids == {f"c{i}": i for i in range(6)}


def test_stratified_covers_every_class(annotations, tmp_path):
    path = write(tmp_path, make_splits(annotations, ["training"], kind="stratified", ratios=[0.12, 0.5]))
    for fold in range(5):
        split = read_split(path, 0.12, fold)  # 7 videos: 6 classes and "no events"
        assert unlabeled_classes(annotations, split) == []
    uniform = write(tmp_path, make_splits(annotations, ["training"], kind="uniform", ratios=[0.12]))
    assert any(unlabeled_classes(annotations, read_split(uniform, 0.12, fold)) for fold in range(5))


def test_hidden_labels_are_gone_before_anything_reads_them(annotations, tmp_path):
    split = read_split(write(tmp_path, make_splits(annotations, ["training"], kind="stratified")), 0.1)
    content = json.loads((tmp_path / "a.json").read_text())
    for video in split.unlabeled:
        content["database"][video]["annotations"] = [{"segment": ["nonsense"], "label": 7}]
    (tmp_path / "b.json").write_text(json.dumps(content))
    a, b = read_hidden(str(tmp_path / "a.json"), split), read_hidden(str(tmp_path / "b.json"), split)
    assert a.videos == b.videos and a.label_ids == b.label_ids == split.label_ids
    assert all(not v.events for v in a.videos if v.id in split.unlabeled)
    assert any(v.events for v in a.videos if v.id in split.labeled)


def test_a_list_of_labeled_videos_alone(annotations, tmp_path):
    labeled = [video.id for video in annotations.of_subsets(["training"])][:3]
    content = published_split(annotations, ["training"], {"labeled": labeled}, "list")
    split = read_split(write(tmp_path, content), content["ratios"][0])
    every = {video.id for video in annotations.of_subsets(["training"])}
    assert split.labeled == tuple(labeled) and set(split.unlabeled) == every - set(labeled)
    with pytest.raises(ValueError, match=r"list: expected .*labeled"):
        published_split(annotations, ["training"], {"train": labeled}, "list")


def test_published_lists(annotations, tmp_path):
    listing = {"labeled": ["v_v0", "v1"], "unlabeled": ["v_v2", "v_v3"]}
    split = read_split(write(tmp_path, published_split(annotations, ["training"], listing, "list")), 0.5)
    assert split.labeled == ("v0", "v1") and split.unlabeled == ("v2", "v3")
    for bad, word in (
        ({"labeled": ["v_nobody"]}, "nobody"),
        ({"labeled": ["v1"], "unlabeled": ["v_v1"]}, "labeled and unlabeled.*'v1'"),
        ({"labeled": []}, "no labeled video"),
    ):
        with pytest.raises(ValueError, match=word):
            published_split(annotations, ["training"], bad, "list")


def test_mistakes(annotations, tmp_path):
    with pytest.raises(ValueError, match=r"ratio 0\.001 leaves no labeled video of 60"):
        make_splits(annotations, ["training"], kind="uniform", ratios=[0.001])
    with pytest.raises(ValueError, match="'random'"):
        make_splits(annotations, ["training"], kind="random")
    path = write(tmp_path, make_splits(annotations, ["training"], kind="uniform", folds=2))
    for arguments, word in (((0.1, 2), "no fold 2"), ((0.001, 0), "asks for 0"), ((0.9, 0), "at most 36")):
        with pytest.raises(ValueError, match=word):
            read_split(path, *arguments)
    content = json.loads(path.read_text())
    content["orders"][0][0] = "v59"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="changed after it was made"):
        read_split(path, 0.1)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="not a split file"):
        read_split(tmp_path / "x.json", 0.1)
    split = read_split(write(tmp_path, make_splits(annotations, ["training"], kind="uniform")), 0.1)
    other = {"database": {"v0": {"subset": "training"}}}
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"names 59 videos that .*other\.json does not have"):
        read_hidden(str(tmp_path / "other.json"), split)

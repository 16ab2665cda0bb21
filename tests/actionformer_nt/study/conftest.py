"""A study of two folds on a tiny data set."""

import pytest
import yaml

from actionformer_nt.protocol.splits import make_splits, write_splits
from libs.datasets.annotations import read_annotations


@pytest.fixture
def study_file(make_data, tmp_path):
    """A study of two folds on a tiny data set."""
    path = make_data(train_cfg={"ema_ramp": True}, plugins=["actionformer_nt"], semi_cfg={
        "split": {"file": str(tmp_path / "split.json"), "ratio": 0.5}, "method": "nt", "burn_in": 1, "iterations": 1,
        "pseudo": {"threshold": 0.01},
    })  # fmt: skip
    annotations = read_annotations(path.parent / "annotations.json")
    write_splits(tmp_path / "split.json", make_splits(annotations, ["training"], kind="uniform", ratios=[0.5]))

    def write(**changes):
        content = {"base": str(path), "output": str(tmp_path / "out"), "methods": ["labeled_only", "target", "nt"],
                   "ratios": [0.5], "folds": [0, 1]}  # fmt: skip
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(content | changes))
        return tmp_path / "study.yaml"

    return write

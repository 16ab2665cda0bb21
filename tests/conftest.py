"""Shared fixtures: reference figures, real data where they are, and tiny data sets."""

import libs  # noqa: F401 # isort: skip (before torch, for how OpenMP's threads wait)

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, settings

REFERENCE = Path(__file__).parent / "data" / "reference"
DATA = Path(os.environ.get("ACTIONFORMER_NT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

torch.set_num_threads(1)  # on any machine: sums depend on it, and small tensors gain nothing from more
settings.register_profile(  # the same examples on any machine, whatever else runs
    "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")


@pytest.fixture(scope="session")
def reference() -> Path:
    return REFERENCE


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data sets; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"real data not found at {DATA}; set ACTIONFORMER_NT_DATA to their folder")
    return DATA


@pytest.fixture(autouse=True)
def _same_numbers():
    """Whatever ran before, a test that draws without a seed of its own draws the same."""
    torch.manual_seed(0)


@pytest.fixture
def in_64_bits(monkeypatch):
    """Everything is computed in 64 bits, also where the code asks for 32. Two ways of computing the same then differ by
    1e-16 or so instead of 1e-7, which decides no comparison and which no step of an optimizer blows up."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def make_data(tmp_path):
    """Writes a tiny data set and a configuration for it; returns the configuration's path.

    Arguments are sections whose keys replace the defaults; `events` maps a video to its annotations.
    """

    def make(events=None, *, steps=64, channels=8, subsets=None, name="tiny", extra=None, **sections) -> Path:
        rng = np.random.default_rng(0)
        if events is None:
            events = {f"v{i}": [_event(0.5 + i, 2.5 + i, i % 2), _event(5.0, 7.0, (i + 1) % 2)] for i in range(6)}
        subsets = subsets or {v: "training" if i < 4 else "test" for i, v in enumerate(events)}
        database = {
            v: {"subset": subsets[v], "duration": 9.0, "fps": 30.0, "annotations": found} for v, found in events.items()
        }
        folder = tmp_path / name
        (folder / "features").mkdir(parents=True, exist_ok=True)
        (folder / "annotations.json").write_text(json.dumps({"database": database} | (extra or {})))
        for video in events:
            np.save(folder / "features" / f"{video}.npy", rng.standard_normal((steps, channels)).astype(np.float32))
        config = {
            "dataset_name": "generic",
            "train_split": ["training"],
            "val_split": ["test"],
            "devices": ["cpu"],
            "output_folder": str(tmp_path / "ckpt"),
            "dataset": {
                "json_file": str(folder / "annotations.json"),
                "feat_folder": str(folder / "features"),
                "file_prefix": None,
                "file_ext": ".npy",
                "num_classes": 2,
                "input_dim": channels,
                "feat_stride": 4,
                "num_frames": 16,
                "max_seq_len": 64,
            },
            "model": {
                "backbone_arch": [1, 1, 2],
                "regression_range": [[0, 4], [4, 8], [8, 10000]],
                "n_mha_win_size": 5,
                "n_head": 2,
                "embd_dim": 8,
                "fpn_dim": 8,
                "head_dim": 8,
            },
            "opt": {"epochs": 2, "warmup_epochs": 1, "learning_rate": 1e-3},
            "loader": {"batch_size": 2, "num_workers": 0},
            "train_cfg": {"init_loss_norm": 20},
            "test_cfg": {"max_seg_num": 50, "min_score": 0.001},
        }
        for section, values in sections.items():
            config[section] = config.get(section, {}) | values if isinstance(values, dict) else values
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return make


def _event(start, end, label_id, label=None):
    return {"segment": [start, end], "label_id": label_id, "label": label or f"class{label_id}"}


@pytest.fixture
def event():
    return _event


@pytest.fixture(autouse=True)
def _plain_logging():
    """The command line sets up logging for a process; a test must not leave that to the next."""
    yield
    for name in ("libs", "actionformer_nt"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)

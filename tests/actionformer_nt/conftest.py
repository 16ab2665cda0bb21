"""Semi-supervised configurations on a tiny data set."""

from contextlib import contextmanager

import pytest
import yaml

from actionformer_nt.protocol.splits import make_splits, write_splits
from actionformer_nt.self_training.trainer import SemiTrainer
from libs.datasets.annotations import read_annotations

SPOT = {"embd_dim": 8, "n_head": 2, "mask_dims": [8], "pseudo": {"threshold": 0.34, "mask_threshold": 0.4}}


@pytest.fixture
def make_semi(make_data, tmp_path, event):
    """A configuration of 8 training videos, some of them labeled, for ActionFormer's architecture or SPOT."""

    def make(*, ratio=0.25, name="semi", dataset=None, arch=None, **semi):
        events = {f"v{i}": [event(1.0, 3.0 + i / 8, i % 2), event(5.0, 8.0, (i + 1) % 2)] for i in range(10)}
        subsets = {f"v{i}": "training" if i < 8 else "test" for i in range(10)}
        settings = {
            "split": {"file": str(tmp_path / f"{name}_split.json"), "ratio": ratio},
            "method": "nt", "burn_in": 4, "iterations": 4, "ckpt_every": 1, "log_every": 1,
            "pseudo": {"threshold": 0.012},
        }  # fmt: skip
        if arch == "SPOT":
            del settings["pseudo"]
        for key, value in semi.items():
            settings[key] = settings[key] | value if isinstance(value, dict) and key in settings else value
        path = make_data(
            events, subsets=subsets, steps=60, name=name, train_cfg={"ema_ramp": True, "dropout": 0.1},
            semi_cfg=settings, plugins=["actionformer_nt"], dataset={"crop_ratio": [0.8, 1.0]} | (dataset or {}),
        )  # fmt: skip
        if arch == "SPOT":
            raw = yaml.safe_load(path.read_text()) | {"model_name": "SPOT", "model": SPOT}
            path.write_text(yaml.safe_dump(raw))
        if arch == "softmax":
            raw = yaml.safe_load(path.read_text())
            raw["model"]["class_form"] = "softmax"
            path.write_text(yaml.safe_dump(raw))
        annotations = read_annotations(path.parent / "annotations.json")
        write_splits(
            tmp_path / f"{name}_split.json", make_splits(annotations, ["training"], kind="stratified", ratios=[1.0])
        )
        return path

    return make


@pytest.fixture
def interrupted():
    """A function n -> context in which a training is interrupted after n iterations."""
    step = SemiTrainer.step

    @contextmanager
    def context(iterations):
        def stop(self, videos):
            if self.iteration == iterations:
                raise KeyboardInterrupt
            return step(self, videos)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(SemiTrainer, "step", stop)
            yield

    return context

"""The whole path on a GPU: training in stages, resuming, evaluation."""

import json

import pytest
import torch
import yaml

from actionformer_nt import run as semi_run
from libs.core import load_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
STAGES = [
    {"learn": "labeled", "iterations": 3},
    {"learn": "pseudo", "iterations": 2, "labels": "stored"},
    {"learn": "pseudo", "iterations": 2, "teacher": "online"},
]
PLAIN = {"strong": {"snippet_mask": 0.0, "channel_dropout": 0.0}, "dataset": {"crop_ratio": None}}


@pytest.fixture
def staged(make_semi):
    """A function device -> configuration without anything drawn at random but the batches."""

    def make(arch, device):
        path = make_semi(arch=arch, stages=STAGES, burn_in=0, iterations=0, **PLAIN)
        raw = yaml.safe_load(path.read_text())
        raw["devices"] = [device]
        raw["train_cfg"]["dropout"] = 0.0
        if arch == "SPOT":
            raw["model"] |= {"dropout": 0.0, "attn_dropout": 0.0, "loss": {"recon_weight": 0.0}}
            raw["model"]["pseudo"] |= {"align": False}
        path.write_text(yaml.safe_dump(raw))
        return load_config(path)

    return make


def losses(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key.endswith("loss")} for record in records]


@pytest.mark.parametrize("arch", [None, "softmax", "SPOT"])
def test_trains_as_on_the_cpu(staged, tmp_path, arch):
    for device in ("cpu", "cuda:0"):
        semi_run.train(staged(arch, device), tmp_path / device, progress=False)
    cpu, gpu = losses(tmp_path / "cpu"), losses(tmp_path / "cuda:0")
    assert len(cpu) == len(gpu) == 7
    # the burn-in; later a pseudo label may fall on the other side of a threshold
    for a, b in zip(cpu[:3], gpu[:3], strict=True):
        assert b == pytest.approx(a, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize(("method", "arch"), [
    ("nt+npl", None), ("nt+npl", "SPOT"), ("fullmatch", "SPOT"), ("sstap", None), ("sstap", "SPOT"),
])  # fmt: skip
def test_methods_with_more_than_class_targets(make_semi, tmp_path, method, arch):
    """Stored pseudo labels are on the CPU, what the student says is not."""
    options = {"npl": {"views": []}} if "npl" in method and arch == "SPOT" else {}
    path = make_semi(arch=arch, stages=STAGES, burn_in=0, iterations=0, method=method, method_options=options)
    raw = yaml.safe_load(path.read_text())
    if arch == "SPOT":
        raw["model"]["pseudo"] |= {"align": False}
    path.write_text(yaml.safe_dump(raw))
    config = load_config(path, overrides=["devices=['cuda:0']"])
    folder = semi_run.train(config, tmp_path / "run", progress=False)
    assert len(losses(folder)) == 7 and all(e.result for e in semi_run.evaluate(config, folder).values())


@pytest.mark.parametrize("arch", [None, "SPOT"])
def test_resumes_and_evaluates(staged, tmp_path, interrupted, arch):
    config = staged(arch, "cuda:0")
    with interrupted(4):
        semi_run.train(config, tmp_path / "run", progress=False)
    semi_run.train(config, tmp_path / "run", resume=tmp_path / "run", progress=False)
    found = semi_run.evaluate(config, tmp_path / "run", progress=False)
    assert set(found) == {"student", "teacher"}
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in records] == [*range(1, 8)]

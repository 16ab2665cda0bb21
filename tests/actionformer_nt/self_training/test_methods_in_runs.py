"""Methods of users in runs: with state, with views of their own, with hidden labels."""

import json

import pytest
import torch

from actionformer_nt import run as semi_run
from actionformer_nt.self_training.setup import set_up
from libs.core import load_config
from libs.training.checkpoint import load_checkpoint

COUNTING = '''
import torch
from actionformer_nt.methods import Lesson, Method


class Counting(Method):
    """Weighs its target by the mean score of all proposals so far."""

    teacher_views = ({"shift": 2},)

    def __init__(self):
        self.total, self.count = torch.zeros(()), 0.0

    def observe(self, evidence):
        assert all(e.generator is None for e in evidence)
        for e in evidence:
            self.total += e.scores.sum()
            self.count += len(e.scores)

    def teach(self, evidence, options):
        weight = 1 + 10 * float(self.total) / max(self.count, 1)
        y = [torch.nn.functional.one_hot(e.probs.argmax(-1), e.probs.shape[-1]).float() for e in evidence]
        draws = [torch.rand(len(e.probs), 1, generator=e.generator) for e in evidence]
        return [Lesson(y=a, w=weight * (b + a * 0)) for a, b in zip(y, draws)]

    def state(self):
        return {"total": self.total.clone(), "count": self.count}

    def load_state(self, state):
        self.total, self.count = state["total"].clone(), state["count"]
'''
EVERY_KEY = {
    "select": "rate", "rate_floor": 0.011, "ignore_from": 0.0105, "overlap": "labels", "nms_iou": 0.3,
    "without_segments": "skip", "second_class": "ignore", "boundary_weight": "spread", "normalizer": "labeled",
}  # fmt: skip


@pytest.fixture
def counting(tmp_path, monkeypatch):
    (tmp_path / "own_methods").mkdir()
    (tmp_path / "own_methods" / "counting.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_methods.counting"


def stopped_and_resumed(config, folder, stop):
    with stop:
        semi_run.train(config, folder, progress=False)
    return semi_run.train(config, folder, resume=folder, progress=False)


def weights(folder):
    state = load_checkpoint(folder / "last.pth.tar")
    return {f"{key} {name}": value for key in ("state_dict", "state_dict_ema") for name, value in state[key].items()}


def same(a, b):
    a, b = weights(a), weights(b)
    return all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("arch", ["LocPointTransformer", "SPOT"])
def test_a_method_with_state_resumes_exactly(make_semi, tmp_path, interrupted, counting, arch):
    config = load_config(make_semi(arch=arch, method=counting, strong={"flip": 0.5}))
    whole = semi_run.train(config, tmp_path / "whole", progress=False)
    assert same(whole, stopped_and_resumed(config, tmp_path / "half", interrupted(6)))
    assert load_checkpoint(whole / "last.pth.tar")["method"]["count"] > 0
    again = semi_run.train(config, tmp_path / "again", progress=False)  # its own instance, so its own state
    assert same(whole, again)


@pytest.mark.parametrize("arch", ["LocPointTransformer", "SPOT"])
def test_a_composed_method_with_state_resumes_exactly(make_semi, tmp_path, interrupted, counting, arch):
    options = {"fixmatch": {"threshold": 0.35 if arch == "SPOT" else 0.51}}
    config = load_config(make_semi(arch=arch, method=[counting, "fixmatch"], method_options=options))
    assert config["semi_cfg"]["method"] == f"{counting}+fixmatch"
    whole = semi_run.train(config, tmp_path / "whole", progress=False)
    assert same(whole, stopped_and_resumed(config, tmp_path / "half", interrupted(6)))
    assert load_checkpoint(whole / "last.pth.tar")["method"][f"{counting}/count"] > 0


@pytest.mark.parametrize("at", [5, 7])
def test_every_setting_of_pseudo_labels_resumes_exactly(make_semi, tmp_path, interrupted, at):
    views = [{"shift": 3}, {"crop": 0.2}]
    config = load_config(make_semi(pseudo=EVERY_KEY, teacher_views=views, method="complementary", weak={"shift": 1}))
    whole = semi_run.train(config, tmp_path / "whole", progress=False)
    assert same(whole, stopped_and_resumed(config, tmp_path / "half", interrupted(at)))
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["pseudo/segments"] > 0 and lines[-1]["unlabeled/loss"] > 0
    assert len(load_checkpoint(whole / "last.pth.tar")["unlabeled"]["recent_sizes"]) == 8


def test_a_method_that_reads_hidden_labels_is_a_diagnostic(make_semi, tmp_path, monkeypatch):
    (tmp_path / "own_methods").mkdir()
    text = "from actionformer_nt.methods.oracle_class import class_targets\nNEEDS_TRUTH = True\n"
    (tmp_path / "own_methods" / "cheating.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config(make_semi(method="own_methods.cheating"))
    with pytest.raises(ValueError, match=r"own_methods\.cheating uses hidden labels"):
        set_up(config)
    run = set_up(config, diagnostic=True)
    videos = [run.stages.unlabeled[0], run.stages.unlabeled[1]]
    batch = run.teacher.teach(videos, run.stages.burn_in, run.model)
    for video, lesson, pseudo in zip(batch.weak, batch.lessons, batch.pseudo, strict=True):
        truth = run.teacher.hidden.true_class(video, pseudo.segments.segments)
        expected = torch.nn.functional.one_hot(truth.clamp(min=0), 2) * (truth >= 0)[:, None]
        assert torch.equal(lesson.y[pseudo.selected], expected.float()) and not lesson.w[~pseudo.selected].any()


NOTICE = [("nt_negative", None, 1), ("nt_negative", "softmax", 0), ("nt", None, 0)]


@pytest.mark.parametrize(("method", "arch", "said"), NOTICE)
def test_a_run_says_that_nt_negative_teaches_a_sigmoid_head_less(make_semi, tmp_path, caplog, method, arch, said):
    with caplog.at_level("INFO"):
        semi_run.train(load_config(make_semi(method=method, arch=arch)), tmp_path / "run", progress=False)
    assert caplog.text.count("nt_negative with a sigmoid head teaches less than target") == said


def test_a_method_may_not_flip_the_teacher_s_views(make_semi, tmp_path, monkeypatch):
    (tmp_path / "own_methods").mkdir()
    text = COUNTING.replace('{"shift": 2}', '{"flip": 0.5}')
    (tmp_path / "own_methods" / "flipping.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="teacher_views: flip"):
        set_up(load_config(make_semi(method="own_methods.flipping")))


def test_a_method_that_does_nothing_is_refused_at_the_start(make_semi, tmp_path, monkeypatch):
    (tmp_path / "own_methods").mkdir()
    text = "from actionformer_nt.methods import Method\nclass Silent(Method):\n    pass\n"
    (tmp_path / "own_methods" / "silent.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"own_methods\.silent: class Silent has neither `teach`, which returns"):
        semi_run.train(load_config(make_semi(method="own_methods.silent")), tmp_path / "run", progress=False)

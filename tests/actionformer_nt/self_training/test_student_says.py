"""What the student says about the teacher's pseudo labels (`Evidence.student`)."""

from typing import Any

import pytest
import torch

from actionformer_nt.methods import Evidence
from actionformer_nt.self_training.pseudo_segments import candidates
from actionformer_nt.self_training.setup import set_up
from libs.core import load_config

STILL = {"snippet_mask": 0.0, "channel_dropout": 0.0}  # strong views that change nothing
ASKING = """
from actionformer_nt.methods import Method

class Asking(Method):
    needs_student = True

    def locate(self, evidence, lessons, options):
        self.seen = evidence
        return lessons
"""


@pytest.fixture
def evidence_of(make_semi, tmp_path, monkeypatch):
    """Evidence of two unlabeled videos, whose student is the teacher itself."""
    folder = tmp_path / "own_methods"
    folder.mkdir()
    (folder / "asking.py").write_text(ASKING)
    monkeypatch.syspath_prepend(tmp_path)

    def make(*, arch=None, strong=STILL, **semi) -> tuple[list[Evidence], Any, Any]:
        run = set_up(load_config(make_semi(arch=arch, method="own_methods.asking", strong=strong, **semi)))
        run.model.train()
        videos = [run.stages.unlabeled[0], run.stages.unlabeled[1]]
        batch = run.teacher.teach(videos, run.stages.burn_in, run.model)
        assert run.model.training
        return run.teacher.method.seen, batch, run

    return make


def test_of_segments_it_says_the_mean_of_its_supporting_candidates(evidence_of):
    """Against a slow mean over the student's candidates, moved back from a view that is shifted."""
    seen, batch, run = evidence_of(strong=STILL | {"shift": 3}, pseudo={"support_iou": 0.9, "temperature": 2.0})
    run.model.eval()
    for e, view, geometry in zip(seen, batch.strong, batch.geometries, strict=True):
        (one,) = run.model.batches([view])
        with torch.no_grad():
            found = candidates(run.model.infer(one), 0)
        shift = float(geometry(torch.zeros(1)))
        for i, segment in enumerate(e.segments.tolist()):
            total, ends, logits = 0.0, torch.zeros(2), torch.zeros(2)
            for (start, end), score, own in zip(found.segments - shift, found.scores, found.logits, strict=True):
                union = max(end, segment[1]) - min(start, segment[0])
                if (min(end, segment[1]) - max(start, segment[0])) / union >= 0.9:
                    total, ends = total + score, ends + score * torch.stack([start, end])
                    logits = logits + score * own / 2.0
            assert bool(e.student.seen[i]) == (total > 0)
            if total:
                torch.testing.assert_close(e.student.segments[i], ends / total)
                torch.testing.assert_close(e.student.probs[i], (logits / total).softmax(0))
    assert any(e.student.seen.any() for e in seen)


@pytest.mark.parametrize("arch", [None, "softmax"])
def test_of_points_too(evidence_of, arch):
    pseudo = {"partition": "dense"} | ({} if arch else {"background_logit": -4.0})
    for e in evidence_of(arch=arch, pseudo=pseudo)[0]:
        assert e.unit == "point" and e.student.seen.all()
        torch.testing.assert_close(e.student.segments, e.segments)
        torch.testing.assert_close(e.student.probs, e.probs)


def test_of_snippets_it_sees_those_of_its_view(evidence_of):
    for e in evidence_of(arch="SPOT")[0]:
        assert torch.equal(e.student.seen, e.selected) and not e.selected.all()
        torch.testing.assert_close(e.student.probs[e.selected], e.probs[e.selected])
    seen, batch, _ = evidence_of(arch="SPOT", strong=STILL | {"crop": 0.6})
    for e, view in zip(seen, batch.strong, strict=True):
        length = view["feats"].shape[1]
        assert e.student.seen.sum() == length < e.selected.sum()


@pytest.mark.parametrize("arch", [None, "SPOT"])
def test_in_a_view_that_runs_backwards_places_and_classes_are_those_of_the_weak_view(evidence_of, arch):
    """The student sees reversed features there, so that only places are compared."""
    (plain, _, _), (flipped, batch, _) = (
        evidence_of(arch=arch, strong=STILL | {"flip": flip}, reversed_classes=[["class0", "class1"]])
        for flip in (0.0, 1.0)
    )
    assert all(geometry.reverses for geometry in batch.geometries)
    for one, two in zip(plain, flipped, strict=True):
        assert torch.equal(one.probs, two.probs)
        if arch == "SPOT":  # every snippet is still there
            assert torch.equal(one.student.seen, two.student.seen)
        else:  # supporters lie where the teacher's segments lie
            seen = two.student.seen
            assert seen.any()
            shift = (two.student.segments - two.segments)[seen].abs().amax(dim=1)
            assert (shift <= 0.45 * (two.segments[:, 1] - two.segments[:, 0])[seen]).all()


def test_classes_of_a_flipped_view_are_swapped_back(make_semi, tmp_path, monkeypatch):
    (tmp_path / "own_methods").mkdir()
    (tmp_path / "own_methods" / "asking.py").write_text(ASKING)
    monkeypatch.syspath_prepend(tmp_path)
    keys = {"arch": "SPOT", "method": "own_methods.asking", "strong": STILL | {"flip": 1.0}}
    found = []
    for pairs in ([], [["class0", "class1"]]):
        run = set_up(load_config(make_semi(**keys, reversed_classes=pairs)))
        run.teacher.teach([run.stages.unlabeled[0]], run.stages.burn_in, run.model)
        found.append(run.teacher.method.seen[0].student.probs)
    assert torch.equal(found[0][:, [1, 0, 2]], found[1]) and not torch.equal(*found)


def test_an_architecture_that_cannot_say_refuses(make_semi, tmp_path, monkeypatch):
    from actionformer_nt.self_training.interface import SelfTraining

    with pytest.raises(ValueError, match="cannot say what the student thinks"):
        SelfTraining.student_says(object(), None, [], [], [])

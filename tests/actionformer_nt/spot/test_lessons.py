"""What a lesson may say about snippets."""

import pytest
import torch

from actionformer_nt.methods import Lesson
from actionformer_nt.self_training.setup import set_up
from libs.core import load_config


@pytest.fixture
def batch(make_semi):
    """An adapter, a student and two unlabeled videos with pseudo labels."""
    run = set_up(load_config(make_semi(arch="SPOT", method="target")))
    taught = run.teacher.teach([run.stages.unlabeled[0], run.stages.unlabeled[1]], run.stages.burn_in, run.model)
    return run, taught


def lessons(batch, **more):
    return [Lesson(y=lesson.y, w=lesson.w, **more) for lesson in batch.lessons]


def class_loss(run, batch, told):
    pseudo = [run.teacher.self_training.taught(*pair)[0] for pair in zip(batch.pseudo, told, strict=True)]
    losses, rows = run.teacher.self_training.losses(
        run.model.eval(), batch.weak, batch.strong, batch.geometries, pseudo, told
    )
    return losses["cls_loss"].item(), rows


def test_snippets_that_a_lesson_keeps_or_ignores(batch):
    run, taught = batch
    steps = len(taught.lessons[0].y)
    first = torch.arange(steps) < 20
    adapter, labels = run.teacher.self_training, taught.pseudo[0]
    (kept, ignored) = (
        adapter.taught(labels, lessons(taught, **choice)[0])[0] for choice in ({"keep": first}, {"ignore": first})
    )
    assert torch.equal(kept.confident[0], first) and torch.equal(kept.mask_rows, labels.mask_rows & first)
    assert torch.equal(ignored.confident, labels.confident & ~first)
    assert torch.equal(ignored.mask_rows, labels.mask_rows & ~first) and labels.mask_rows[0, 20:].any()
    whole, rows = class_loss(run, taught, lessons(taught))
    none, no_rows = class_loss(run, taught, lessons(taught, keep=torch.zeros(steps, dtype=torch.bool)))
    assert whole > 0 and rows > 0 and none == 0 and no_rows == 0
    for choice in ({"v": torch.ones(steps)}, {"segments": torch.zeros(steps, 2)}):
        with pytest.raises(ValueError, match="SPOT: snippets have no boundaries"):
            adapter.taught(labels, lessons(taught, **choice)[0])


def test_a_lesson_s_normalizer_divides_the_class_loss(batch):
    run, taught = batch
    valid = sum(view["feats"].shape[1] for view in taught.strong)
    whole, _ = class_loss(run, taught, lessons(taught))
    divided, _ = class_loss(run, taught, lessons(taught, normalizer=50.0))
    assert divided * 100 == pytest.approx(whole * valid, rel=1e-5)


@pytest.mark.parametrize("method", ["dense_teacher", "fullmatch"])
def test_methods_about_points_teach_all_valid_snippets(make_semi, method):
    """With a threshold that hardly any snippet reaches."""
    run = set_up(load_config(make_semi(arch="SPOT", method=method), overrides=["model.pseudo.threshold=0.4"]))
    taught = run.teacher.teach([run.stages.unlabeled[0], run.stages.unlabeled[1]], run.stages.burn_in, run.model)
    for labels, lesson, view in zip(taught.pseudo, taught.lessons, taught.weak, strict=True):
        e = run.teacher.self_training.evidence(labels)
        assert e.valid.sum() == view["feats"].shape[1] and torch.equal(e.existing, e.valid)
        assert torch.equal(labels.confident[0], e.valid) and torch.equal(lesson.keep, e.valid)  # all that exist teach
    plain = set_up(load_config(make_semi(arch="SPOT", method="target"), overrides=["model.pseudo.threshold=0.4"]))
    found = plain.teacher.pseudo_labels_of([plain.stages.unlabeled[0]], plain.stages.burn_in)[0]
    selected = plain.teacher.self_training.evidence(found).selected
    assert torch.equal(selected, found.confident[0]) and 0 < selected.sum() < found.valid.sum()

"""Methods that compare the student with the teacher on views: matched places, losses, and what a run does with them."""

import json
import math

import pytest
import torch

from actionformer_nt import run as semi_run
from actionformer_nt.methods import Matched, Progress, get_method
from actionformer_nt.pseudo_sections import ViewSection
from actionformer_nt.self_training.consistency import compared, consistency_losses
from actionformer_nt.self_training.matching import match_pyramids
from actionformer_nt.self_training.setup import set_up
from actionformer_nt.self_training.teacher import Teacher
from actionformer_nt.self_training.views import Geometry
from libs.core import load_config
from libs.modeling.assignment import pyramid_points
from libs.modeling.class_form import ClassForm
from libs.modeling.meta_archs import PyramidOutput
from libs.training.checkpoint import load_checkpoint
from libs.training.resume import load_model

STILL = {"warp": 0.0, "snippet_mask": 0.0}


def run_of(make_semi, *, arch=None, view=STILL, **semi):
    run = set_up(load_config(make_semi(arch=arch, method="ssp", method_options={"ssp": {"view": view}}, **semi)))
    return run, [run.stages.unlabeled[0], run.stages.unlabeled[1]]


def a_pair(seed=0, n=7, m=2):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.rand(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    return Matched(draw(n, 3).requires_grad_(), draw(n, 3), (4 * draw(n, m)).requires_grad_(), 4 * draw(n, m))


def test_ssp_against_loops():
    options = {"class_weight": 3.0, "boundary_weight": 0.5, "ramp_up": 10}
    method, videos = get_method("ssp", {"ssp": options}), [a_pair(0), a_pair(1, n=4)]

    def values(iteration):
        found = method.consistency([videos], labeled=True, progress=Progress(iteration, 1.0))
        return {name: loss.item() for name, loss in found.items()}

    found, later = values(4), values(10)
    rise, classes, places = math.exp(-5 * 0.6**2), 0.0, 0.0
    for m in videos:
        n = len(m.scores)
        scores, said, ends, told = (column.tolist() for column in m)
        classes += sum((scores[i][c] - said[i][c]) ** 2 for i in range(n) for c in range(3)) / (3 * n)
        best = [max(row) for row in said]
        away = [sum((ends[i][k] - told[i][k]) ** 2 for k in range(2)) for i in range(n)]
        places += sum(b * a for b, a in zip(best, away, strict=True)) / (2 * sum(best))
    assert found["class"] == pytest.approx(3.0 * rise * classes / 2)
    assert found["place"] == pytest.approx(0.5 * rise * places / 2)
    assert later["class"] == pytest.approx(3.0 * classes / 2)


def test_its_gradients_against_finite_differences():
    method = get_method("ssp")
    pair = a_pair()

    def loss(scores, places):
        moved = pair._replace(scores=scores, places=places)
        return sum(method.consistency([[moved]], labeled=False, progress=Progress(1000, 1.0)).values())

    assert torch.autograd.gradcheck(loss, (pair.scores, pair.places))


@pytest.mark.parametrize("arch", [None, "softmax", "SPOT"])
def test_without_a_perturbation_a_network_agrees_with_itself(make_semi, arch):
    run, videos = run_of(make_semi, arch=arch)
    run.model.eval()
    for pair, video in zip(compared(run, "student 0", ViewSection(), videos, 4), videos, strict=True):
        assert len(pair.scores) >= video["feats"].shape[1]  # every point of the finest level, every snippet
        torch.testing.assert_close(pair.scores, pair.teacher_scores)
        torch.testing.assert_close(pair.places, pair.teacher_places, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arch", [None, "SPOT"])
def test_a_flip_and_its_classes_are_undone(make_semi, arch):
    """Of two runs whose pairs of reversed classes differ, only the student's classes do."""
    found = []
    for pairs in ([], [["class0", "class1"]]):
        run, videos = run_of(make_semi, arch=arch, reversed_classes=pairs)
        run.model.eval()
        found.append(compared(run, "student 0", ViewSection(flip=1.0), videos, 4))
    for one, two in zip(*found, strict=True):
        assert torch.equal(one.scores.flip(1), two.scores) and not torch.equal(one.scores, two.scores)
        assert torch.equal(one.teacher_scores, two.teacher_scores) and torch.equal(one.places, two.places)


def pyramid(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    points = pyramid_points([16, 8], [1, 2], [(0, 8), (8, 1000)], torch.device("cpu"))
    logits, offsets = ([torch.rand(1, len(p), 2, generator=generator) for p in points] for _ in range(2))
    masks = [(torch.arange(len(p)) < n)[None] for p, n in zip(points, lengths, strict=True)]
    return PyramidOutput(logits, offsets, masks, points)


@pytest.mark.parametrize("shift", [-3.0, 0.4, 2.0, 40.0])
def test_points_are_matched_with_the_nearest_of_their_level(shift):
    teacher, student = pyramid([14, 7], 0), pyramid([11, 6], 1)
    geometry = Geometry([(torch.tensor([0.0, 1.0]), torch.tensor([shift, shift + 1.0]))])
    found = match_pyramids(teacher, 0, student, 0, geometry, form=ClassForm.SIGMOID)
    rows = []
    for level, (stride, mine, theirs) in enumerate(((1, 11, 14), (2, 6, 7))):
        for i in range(theirs):
            moved = i * stride + shift
            j = min(range(mine), key=lambda j: abs(j * stride - moved))
            if abs(j * stride - moved) <= stride / 2:
                left, right = student.offsets[level][0, j].tolist()
                start, end = (j - left) * stride - shift, (j + right) * stride - shift
                rows.append([
                    *student.logits[level][0, j].sigmoid().tolist(), *teacher.logits[level][0, i].sigmoid().tolist(),
                    (i * stride - start) / stride, (end - i * stride) / stride, *teacher.offsets[level][0, i].tolist(),
                ])  # fmt: skip
    expected = torch.tensor(rows).view(-1, 8)
    torch.testing.assert_close(torch.cat(list(found), dim=1), expected, atol=1e-5, rtol=1e-5)
    assert (shift == 40.0) == (len(expected) == 0)


def test_losses_are_of_labeled_and_unlabeled_videos_alike(make_semi):
    run, videos = run_of(make_semi, view={"warp": 0.3, "snippet_mask": 0.5})
    labeled = [run.stages.labeled[0], run.stages.labeled[1]]
    first = run.stages.burn_in
    found = consistency_losses(run, first, labeled, videos)
    assert list(found) == ["labeled_class", "labeled_place", "unlabeled_class", "unlabeled_place"]
    swapped = consistency_losses(run, first, videos, labeled)
    for name in ("class", "place"):
        one, two = found[f"labeled_{name}"].item(), swapped[f"unlabeled_{name}"].item()
        assert one > 0 and one == pytest.approx(two, rel=0.5)  # but for dropout


@pytest.mark.parametrize("arch", [None, "SPOT"])
def test_a_run_makes_no_pseudo_labels_and_stores_none(make_semi, tmp_path, arch):
    stages = [{"learn": "labeled", "iterations": 4}, {"learn": "pseudo", "iterations": 3, "labels": "stored"}]
    path = make_semi(arch=arch, method="ssp", stages=stages, burn_in=0, iterations=0, log_hidden=True)
    config = load_config(path, overrides=["model.pseudo.align=false"] if arch == "SPOT" else [])
    folder = semi_run.train(config, tmp_path / "run", progress=False)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["consistency/unlabeled_class"] > 0 and last["consistency/labeled_place"] > 0
    assert not [name for name in last if name.startswith(("pseudo/", "unlabeled/", "hidden/"))]
    assert not (folder / "pseudo_labels").exists()


def test_views_that_nothing_compares_are_refused(make_semi, tmp_path, monkeypatch):
    (tmp_path / "own_methods").mkdir()
    head = "from actionformer_nt.methods import Method\nclass Idle(Method):\n"
    texts = {
        "watching": (
            "    student_views = ({},)\n    def teach(self, e, o): pass\n",
            "student_views`, but no `consistency",
        ),
        "idle": ("    has_lessons = False\n    def teach(self, e, o): pass\n", "neither `teach`"),
    }
    monkeypatch.syspath_prepend(tmp_path)
    for name, (body, message) in texts.items():
        (tmp_path / "own_methods" / f"{name}.py").write_text(head + body)
        with pytest.raises(ValueError, match=rf"own_methods\.{name}: class Idle has .*{message}"):
            set_up(load_config(make_semi(method=f"own_methods.{name}")))


STAGES = [{"learn": "labeled", "iterations": 4}, {"learn": "pseudo", "iterations": 3, "teacher": "online"}]


def weights(folder, name="last"):
    state = load_checkpoint(folder / f"{name}.pth.tar")["state_dict"]
    return {name.removeprefix("module."): value for name, value in state.items()}


@pytest.mark.parametrize("arch", [None, "SPOT"])
def test_modules_of_a_method_learn_in_self_training_alone_and_are_left_out_of_predictions(make_semi, tmp_path, arch):
    keys = {"arch": arch, "stages": STAGES, "burn_in": 0, "iterations": 0}
    plain = semi_run.train(load_config(make_semi(method="labeled_only", **keys)), tmp_path / "plain", progress=False)
    config = load_config(make_semi(method="sstap", **keys))
    folder = semi_run.train(config, tmp_path / "run", progress=False)
    before, after, other = weights(folder, "burn_in"), weights(folder), weights(plain, "burn_in")
    own = {name for name in before if name.startswith("method_modules.")}
    assert own == {f"method_modules.{layer}.{part}" for layer in ("decoder", "order") for part in ("weight", "bias")}
    assert all(torch.equal(before[name], other[name]) for name in other) and other.keys() == before.keys() - own
    assert not any(torch.equal(before[name], after[name]) for name in own)
    model = load_model(config, folder / "last.pth.tar", weights="raw")
    assert not hasattr(model, "method_modules") and not own & model.state_dict().keys()
    # from the burn-in of another method
    there = load_config(
        make_semi(method="sstap", **keys), overrides=[f"semi_cfg.burn_in_checkpoint={plain / 'burn_in.pth.tar'}"]
    )
    again = weights(semi_run.train(there, tmp_path / "again", progress=False))
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_an_optimizer_that_does_not_know_the_modules_is_refused(make_semi, tmp_path):
    keys = {"stages": [STAGES[0], STAGES[1] | {"schedule": "continued"}], "burn_in": 0, "iterations": 0}
    plain = semi_run.train(load_config(make_semi(method="labeled_only", **keys)), tmp_path / "plain", progress=False)
    keys["burn_in_checkpoint"] = str(plain / "burn_in.pth.tar")
    with pytest.raises(ValueError, match=r"does not know the modules of method sstap; give .* schedule: own"):
        semi_run.train(load_config(make_semi(method="sstap", **keys)), tmp_path / "run", progress=False)
    semi_run.train(load_config(make_semi(method="ssp", **keys)), tmp_path / "run", progress=False)


def test_a_refreshed_teacher_is_refreshed_without_pseudo_labels_too(make_semi, tmp_path, monkeypatch):
    frozen = []
    freeze = Teacher._freeze
    monkeypatch.setattr(Teacher, "_freeze", lambda self: frozen.append(self) or freeze(self))
    stages = [STAGES[0], {"learn": "pseudo", "iterations": 6, "teacher": "refreshed", "refresh_every": 2}]
    for method, number in (("ssp", 3), ("target", 3), ("target+ssp", 3)):
        frozen.clear()
        config = load_config(make_semi(method=method, stages=stages, burn_in=0, iterations=0))
        semi_run.train(config, tmp_path / method, progress=False)
        assert len(frozen) == number, method


def test_windows_that_the_teacher_sees_in_several_batches(make_semi):
    run, videos = run_of(make_semi, arch="SPOT")
    run.model.eval()
    one = compared(run, "student 0", ViewSection(), videos, 4)
    run.teacher.network.options.window_batch = 1
    run.model.train()
    two = compared(run, "student 0", ViewSection(), videos, 4)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.teacher_scores, b.teacher_scores)
        torch.testing.assert_close(a.teacher_places, b.teacher_places)


def test_what_does_not_go_with_a_method_without_pseudo_labels(make_semi, caplog):
    with pytest.raises(ValueError, match="on_collapse: stop: method ssp has no pseudo labels to watch"):
        set_up(load_config(make_semi(method="ssp", on_collapse="stop")))
    frozen = [STAGES[0], {"learn": "pseudo", "iterations": 3}]
    set_up(load_config(make_semi(method="sstap", stages=frozen, burn_in=0, iterations=0, weak={"shift": 1})))
    assert "method sstap compares the student with its average, but the teacher is frozen" in caplog.text
    caplog.clear()
    set_up(load_config(make_semi(method="nt+ssp", stages=frozen, burn_in=0, iterations=0)))
    assert "frozen" not in caplog.text

"""Semi-supervised runs on a tiny data set: no leak, exact resume, and the baseline that is the supervised run."""

import json
import re

import numpy as np
import pytest
import torch
import yaml

from actionformer_nt import run as semi_run
from actionformer_nt.methods.evidence import ramp
from actionformer_nt.self_training.criterion import UnlabeledCriterion
from actionformer_nt.self_training.point_targets import PointTargets
from actionformer_nt.self_training.setup import set_up
from libs.core import load_config
from libs.core import registry as registries
from libs.core.actionformer_section import LocPointTransformerSection
from libs.modeling.assignment import Targets
from libs.modeling.criterion import Criterion
from libs.modeling.meta_archs import PtTransformer
from libs.training import run as engine
from libs.training.checkpoint import load_checkpoint

ARCHITECTURES = ("LocPointTransformer", "SPOT")


def run(path, folder, **options):
    return semi_run.train(load_config(path), folder, progress=False, **options)


def records(folder, hidden=True):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return lines if hidden else [{k: v for k, v in line.items() if not k.startswith("hidden/")} for line in lines]


def assert_same_weights(a, b):
    one, two = load_checkpoint(a / "last.pth.tar"), load_checkpoint(b / "last.pth.tar")
    for key in ("state_dict", "state_dict_ema"):
        for name, value in one[key].items():
            assert torch.equal(value, two[key][name]), (key, name)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_hidden_labels_change_nothing(make_semi, tmp_path, arch):
    """With the labels of unlabeled videos replaced, deleted or broken, weights and losses are bit-identical."""
    path = make_semi(log_hidden=True, arch=arch, pretrain=2 if arch == "SPOT" else 0)
    whole = run(path, tmp_path / "whole")
    file = path.parent / "annotations.json"
    content = json.loads(file.read_text())
    split = json.loads((tmp_path / "semi_split.json").read_text())
    labeled = set(split["orders"][0][:2])
    hidden_curves = [{k for k in line if k.startswith("hidden/")} for line in records(whole)]
    assert any(hidden_curves)
    for number, events in enumerate(
        ([{"segment": [0.2, 0.9], "label": "class1", "label_id": 1}], [], [{"segment": "broken"}])
    ):
        for video, entry in content["database"].items():
            if entry["subset"] == "training" and video not in labeled:
                entry["annotations"] = events
        file.write_text(json.dumps(content))
        config = load_config(path)
        config["semi_cfg"]["log_hidden"] = number == 0
        other = semi_run.train(config, tmp_path / f"other{number}", progress=False)
        assert_same_weights(whole, other)
        assert records(whole, hidden=False) == records(other, hidden=False)


@pytest.mark.parametrize("stop", [2, 4, 6])
@pytest.mark.parametrize("source", ["online", "refresh"])
def test_interrupted_in_either_stage_it_ends_the_same(make_semi, tmp_path, interrupted, stop, source):
    pseudo = {"source": source, "refresh_every": 3, "select": "per_class"}
    path = make_semi(pseudo=pseudo, method="complementary", strong={"flip": 0.5})
    whole = run(path, tmp_path / "whole")

    with interrupted(stop):
        run(path, tmp_path / "half")
    config = load_config(path)
    config["loader"]["num_workers"] = 1
    half = semi_run.train(config, tmp_path / "half", resume=tmp_path / "half", progress=False)
    assert_same_weights(whole, half)
    assert records(whole) == records(half)


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_spot_interrupted_in_any_stage_ends_the_same(make_semi, tmp_path, interrupted, stop):
    path = make_semi(arch="SPOT", pretrain=2, burn_in=2, strong={"flip": 0.5, "shift": 2}, method="complementary")
    whole = run(path, tmp_path / "whole")
    lines = records(whole)
    assert len(lines) == 8 and "pretext/order_loss" in lines[1] and "labeled/mask_loss" not in lines[1]
    assert "labeled/mask_loss" in lines[2] and "unlabeled/mask_loss" in lines[4]

    with interrupted(stop):
        run(path, tmp_path / "half")
    half = run(path, tmp_path / "half", resume=tmp_path / "half")
    assert_same_weights(whole, half)
    assert records(whole) == records(half)


def test_pretext_tasks_are_those_of_spot_or_of_a_method(make_semi, tmp_path):
    with pytest.raises(
        ValueError, match=r"semi_cfg\.pretrain: 2: neither model_name: LocPointTransformer nor method nt"
    ):
        run(make_semi(pretrain=2), tmp_path / "run")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_teacher_sees_the_weak_view_and_the_student_the_strong_one(make_semi, monkeypatch, arch):
    """The weak view is the video itself here, and the strong one has noise."""
    run = set_up(load_config(make_semi(arch=arch, strong={"noise": 1.0, "snippet_mask": 0.0, "channel_dropout": 0.0})))
    seen, self_training = [], run.teacher.self_training
    pseudo_labels = self_training.pseudo_labels
    monkeypatch.setattr(
        self_training,
        "pseudo_labels",
        lambda teacher, videos, further: seen.extend(videos) or pseudo_labels(teacher, videos, further),
    )
    videos = [run.stages.unlabeled[0], run.stages.unlabeled[1]]
    lesson = run.teacher.teach(videos, run.stages.burn_in, run.model)
    for video, weak, given, strong in zip(videos, lesson.weak, seen, lesson.strong, strict=True):
        assert torch.equal(given["feats"], video["feats"]) and torch.equal(weak["feats"], video["feats"])
        assert 0.5 < (strong["feats"] - video["feats"]).std() / video["feats"].std() < 2


@pytest.mark.parametrize(("arch", "pretrain"), [("LocPointTransformer", 0), ("SPOT", 2)])
def test_the_unlabeled_loss_rises_from_the_end_of_the_burn_in(make_semi, tmp_path, monkeypatch, arch, pretrain):
    asked = []
    monkeypatch.setattr("actionformer_nt.self_training.iteration.ramp", lambda *args: asked.append(args) or ramp(*args))
    run(make_semi(arch=arch, pretrain=pretrain, burn_in=3, iterations=4, ramp_up=10), tmp_path / "run")
    assert asked == [(0, 10), (1, 10), (2, 10), (3, 10)]


def test_an_architecture_without_self_training_of_its_own_has_the_pyramid_s(make_semi, tmp_path, monkeypatch):
    class Mine(PtTransformer):
        def __init__(self, *, extra=1, **model):
            super().__init__(**model)
            self.extra = extra

    for registry in (registries.META_ARCHS, registries.MODEL_SCHEMAS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registries.register_architecture("Mine", schema=LocPointTransformerSection, model=Mine)
    raw = yaml.safe_load(make_semi().read_text()) | {"model_name": "Mine"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw))
    whole = run(tmp_path / "mine.yaml", tmp_path / "mine")
    assert_same_weights(whole, run(make_semi(), tmp_path / "plain"))


def test_a_shared_burn_in_gives_the_same_end(make_semi, tmp_path):
    path = make_semi()
    whole = run(path, tmp_path / "whole")
    config = load_config(path)
    config["semi_cfg"]["burn_in_checkpoint"] = str(whole / "burn_in.pth.tar")
    assert_same_weights(whole, semi_run.train(config, tmp_path / "shared", progress=False))
    config["semi_cfg"]["burn_in"] = 3
    with pytest.raises(ValueError, match=r"after 4 iterations, but the burn-in of this run has 3"):
        semi_run.train(config, tmp_path / "other", progress=False)


def test_after_a_given_burn_in_the_configured_rate_holds(make_semi, tmp_path):
    path = make_semi(burn_in=4, iterations=4)
    burn_in = run(path, tmp_path / "whole") / "burn_in.pth.tar"
    rates = []
    for factor in (1.0, 0.01):
        config = load_config(path)
        config["semi_cfg"]["burn_in_checkpoint"] = str(burn_in)
        config["opt"]["learning_rate"] *= factor
        folder = semi_run.train(config, tmp_path / f"run{factor}", progress=False)
        rates.append([line["lr"] for line in records(folder)[:3]])
    assert [b / a for a, b in zip(*rates, strict=True)] == pytest.approx([0.01] * 3, rel=1e-2)


def test_labeled_only_with_all_labels_is_the_supervised_run(make_semi, tmp_path):
    path = make_semi(ratio=1.0, method="labeled_only", burn_in=8, iterations=4, warmup_iterations=4)
    semi = run(path, tmp_path / "semi")
    raw = yaml.safe_load(path.read_text())
    del raw["semi_cfg"]
    raw["opt"] |= {"epochs": 2, "warmup_epochs": 1}  # 4 iterations an epoch
    (tmp_path / "supervised.yaml").write_text(yaml.safe_dump(raw))
    assert_same_weights(semi, engine.train(load_config(tmp_path / "supervised.yaml"), tmp_path / "sup", progress=False))


DENSE, SPARED = {"partition": "dense", "background_logit": -4.0}, {"background": "partition", "background_logit": -4.0}


@pytest.mark.parametrize("arch", [None, "softmax"])
@pytest.mark.parametrize("method", ["target", "nt", "soft", "complementary"])
@pytest.mark.parametrize("pseudo", [DENSE, SPARED])
def test_distributions_at_points(make_semi, tmp_path, method, pseudo, arch):
    if arch == "softmax":
        pseudo = pseudo | {"background_logit": None}
    path = make_semi(method=method, pseudo=pseudo, arch=arch, weak={"shift": 1}, strong={"snippet_mask": 0.5})
    lines = records(run(path, tmp_path / "run"))
    assert np.isfinite(lines[-1]["unlabeled/loss"]) and lines[-1]["unlabeled/cls_loss"] > 0
    total = sum(lines[-1][f"space/{part}"] for part in ("target", "positive", "negative", "ambiguous"))
    assert total == pytest.approx(3 if "partition" in pseudo else 2)  # classes of a distribution


def test_background_that_is_partitioned_matters_only_to_methods_with_non_target_classes(make_semi, tmp_path):
    for method, same in (("target", True), ("nt", False)):
        plain, spared = (
            run(make_semi(method=method, pseudo=pseudo), tmp_path / f"{method}{i}")
            for i, pseudo in enumerate(({}, SPARED))
        )
        losses = [[line.get("unlabeled/cls_loss") for line in records(folder)] for folder in (plain, spared)]
        assert (losses[0] == losses[1]) == same


def test_the_oracle_needs_permission(make_semi, tmp_path):
    path = make_semi(method="oracle_class", pseudo={"support_iou": 0.5})
    with pytest.raises(ValueError, match="only as a diagnostic"):
        run(path, tmp_path / "run")
    assert records(run(path, tmp_path / "run", diagnostic=True))[-1]["unlabeled/loss"] > 0


def test_a_teacher_that_finds_nothing_does_no_harm(make_semi, tmp_path, caplog):
    path = make_semi(pseudo={"threshold": 1.0}, iterations=210, ckpt_every=500)
    lines = records(run(path, tmp_path / "run"))
    assert "has found no segment for 200 iterations" in caplog.text
    assert all(np.isfinite(line["labeled/final_loss"]) for line in lines) and lines[-1]["pseudo/segments"] == 0


def test_normalizer_survives_five_hundred_steps_without_pseudo_labels():
    criterion = UnlabeledCriterion(form="sigmoid", reg_weight=1.0)
    logits, offsets = torch.randn(1, 50, 3), torch.rand(1, 50, 2)
    plain = Targets(torch.zeros(1, 50, 3), torch.ones(1, 50, 3), torch.zeros(1, 50, 2), torch.zeros(1, 50))
    nothing = PointTargets(plain, torch.zeros(1, 50, dtype=torch.bool))
    first = criterion(logits, offsets, nothing, labeled_normalizer=100.0)["loss"]
    for _ in range(500):
        last = criterion(logits, offsets, nothing, labeled_normalizer=100.0)["loss"]
    assert criterion.normalizer == pytest.approx(10.0) and last / first < 10
    some = nothing._replace(owned=torch.arange(50)[None] < 40)
    criterion(logits, offsets, some, labeled_normalizer=100.0)
    assert criterion.normalizer == pytest.approx(0.9 * 10 + 0.1 * 40)


def test_ramp():
    assert ramp(5, 0) == ramp(10, 10) == 1.0
    assert ramp(0, 10) == pytest.approx(np.exp(-5)) and ramp(3, 10) < ramp(4, 10) < 1


def test_mistakes(make_semi, tmp_path):
    def fails(word, diagnostic=False, **semi):
        config = load_config(make_semi(**semi))
        with pytest.raises(ValueError, match=word):
            semi_run.train(config, tmp_path / "run", progress=False, diagnostic=diagnostic)

    fails("no unlabeled video.*labeled_only", ratio=1.0)
    for semi, word in (
        ({"method": "nt_negativ"}, r"semi_cfg: method.*did you mean 'nt_negative'"),
        ({"methods": "nt"}, "did you mean 'method'"),
        ({"burn_in": 0, "iterations": 0}, "nothing to train"),
        ({"lam": 1.5}, r"semi_cfg\.lam"),
        ({"pseudo": {"treshold": 0.1}}, r"semi_cfg\.pseudo\.treshold.*did you mean 'threshold'"),
    ):
        with pytest.raises(ValueError, match=word):
            load_config(make_semi(**semi))
    for pseudo, word in (
        ({"background": "partition"}, "background_logit.*-0.85"),
        ({"background_logit": 1.0}, "background_logit: 1.0: without effect"),
    ):
        fails(word, pseudo=pseudo)
    for semi, word in (
        ({"pseudo": DENSE, "strong": {"flip": 0.5, "warp": 0.1}}, "strong.warp, strong.flip moves them"),
        ({"pseudo": DENSE | {"background": "ignore"}}, "every point has its own"),
    ):
        with pytest.raises(ValueError, match=word):
            load_config(make_semi(**semi))
    fails("needs pseudo.partition: segments", True, pseudo=DENSE, method="oracle_class", strong={})
    fails(r"semi_cfg\.pseudo\.threshold.*model\.pseudo", arch="SPOT", pseudo={"threshold": 0.5})
    config = load_config(make_semi())
    config["test_cfg"]["ext_score_file"] = "scores.json"
    with pytest.raises(ValueError, match="allow_external_scores"):
        set_up(config)
    config = load_config(make_semi())
    config["train_cfg"]["ema_ramp"] = False
    with pytest.raises(ValueError, match="ema_ramp must be true"):
        set_up(config)


FROZEN = {"learn": "pseudo", "iterations": 3, "teacher": "frozen"}


def test_hidden_labels_are_not_compared_with_a_weak_view_that_moves(make_semi):
    """Where nothing reads hidden labels, it may move."""

    def with_stage(stage):
        return {"stages": [{"learn": "labeled", "iterations": 3}, stage], "burn_in": 0, "iterations": 0}

    for semi, name, reader in (
        ({"log_hidden": True}, "shift", "log_hidden: true"), ({"method": "oracle_class"}, "flip", "oracle_class"),
        ({"log_hidden": True} | with_stage(FROZEN), "crop", "log_hidden"), ({"log_hidden": True}, "warp", "log_hidden"),
    ):  # fmt: skip
        config = load_config(make_semi(**semi, weak={name: 1 if name == "shift" else 0.5}))
        with pytest.raises(ValueError, match=rf"semi_cfg\.weak\.{name}: moves events .*{reader}"):
            set_up(config, diagnostic=True)
    for semi, weak in (
        ({"log_hidden": True}, {"noise": 1.0}), ({}, {"shift": 1}),
        ({"log_hidden": True, "method": "labeled_only"}, {"shift": 1}),
    ):  # fmt: skip
        set_up(load_config(make_semi(**semi, weak=weak)))


def test_the_log_tells_each_stage_in_one_line(make_semi, tmp_path, caplog):
    stages = [
        {"learn": "labeled", "iterations": 2}, FROZEN | {"labels": "stored"},
        FROZEN | {"teacher": "refreshed", "refresh_every": 2, "student": "fresh"},
        {"learn": "pseudo", "iterations": 1, "teacher": "online", "schedule": "continued"},
    ]  # fmt: skip
    with caplog.at_level("INFO"):
        run(make_semi(stages=stages, burn_in=0, iterations=0), tmp_path / "run")
    told = [r.getMessage() for r in caplog.records if re.match(r"iteration \d+: stage", r.getMessage())]
    assert told[:3] == [
        "iteration 0: stage 1 of 4: labeled, 2 iterations, warm student",
        "iteration 2: stage 2 of 4: pseudo, 3 iterations, frozen teacher, stored labels, warm student",
        "iteration 5: stage 3 of 4: pseudo, 3 iterations, refreshed teacher, labels on views, fresh student",
    ]
    assert told[3:] == [told[3]] and told[3].endswith(
        "online teacher, labels on views, warm student, continued schedule"
    )


AT_SEGMENTS = {"method": "complementary", "strong": {"flip": 0.5}}
AT_POINTS = {"method": "dense_teacher", "strong": {"noise": 0.1}}


@pytest.mark.two_paths
@pytest.mark.parametrize(("arch", "semi", "pseudo"), [
    (None, AT_SEGMENTS, {}), ("softmax", AT_SEGMENTS, {}), (None, AT_POINTS, DENSE),
])  # fmt: skip
def test_accumulated_gradients_are_those_of_the_whole_batch(
    in_64_bits, make_semi, tmp_path, monkeypatch, arch, semi, pseudo
):
    """With normalisers that stay. A part has half the normaliser of the batch; the teacher sees the whole batch."""
    monkeypatch.setattr(Criterion, "MOMENTUM", 1.0)
    monkeypatch.setattr(UnlabeledCriterion, "MOMENTUM", 1.0)
    path = make_semi(
        arch=arch, ratio=0.5, unlabeled_batch_size=4, labeled_view="strong", **semi,
        pseudo={"select": "per_class", "threshold": 0.012} | pseudo,
    )  # fmt: skip
    folders = []
    for parts in (1, 2):
        config = load_config(path, overrides=["loader.batch_size=4", "train_cfg.dropout=0", "train_cfg.droppath=0"])
        config["train_cfg"] |= {"accumulate": parts, "init_loss_norm": 20 / parts}
        folders.append(semi_run.train(config, tmp_path / f"parts{parts}", progress=False))
    one, two = map(records, folders)
    assert one[-1]["pseudo/segments"] > 0
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        assert all(a[key] == pytest.approx(b[key], rel=1e-9) for key in a.keys() - {"unlabeled/normalizer"})
    whole, parts = (load_checkpoint(folder / "last.pth.tar")["state_dict"] for folder in folders)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-11, msg=name)


def test_parts_that_do_not_divide_a_batch(make_semi):
    config = load_config(make_semi(), overrides=["train_cfg.accumulate=2", "semi_cfg.unlabeled_batch_size=3"])
    with pytest.raises(ValueError, match=r"semi_cfg\.unlabeled_batch_size: 3 must be a multiple of train_cfg\.acc"):
        set_up(config)


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_and_goes_on(make_semi, tmp_path, interrupted, amp):
    path = make_semi(strong={"flip": 0.5})
    config = load_config(path, overrides=[f"train_cfg.amp={amp}"])
    whole = semi_run.train(config, tmp_path / "whole", progress=False)

    with interrupted(6):
        semi_run.train(config, tmp_path / "half", progress=False)
    half = semi_run.train(config, tmp_path / "half", resume=tmp_path / "half", progress=False)
    assert_same_weights(whole, half)
    assert all(np.isfinite(v) for line in records(whole) for v in line.values())
    assert ("scale" in load_checkpoint(whole / "last.pth.tar")["scaler"]) == (amp == "fp16")


def test_pretext_tasks_in_parts(make_semi, tmp_path):
    config = load_config(make_semi(arch="SPOT", pretrain=2), overrides=["train_cfg.accumulate=2"])
    lines = records(semi_run.train(config, tmp_path / "run", progress=False))
    assert np.isfinite(lines[1]["pretext/order_loss"]) and np.isfinite(lines[-1]["unlabeled/mask_loss"])

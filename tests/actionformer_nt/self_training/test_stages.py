"""Stages and rounds: schedules, teachers, students and stored pseudo labels, resumed anywhere."""

import copy
import json
import shutil

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from actionformer_nt import run as semi_run
from actionformer_nt.config import SemiSection
from actionformer_nt.methods.evidence import ramp
from actionformer_nt.self_training.setup import set_up
from actionformer_nt.self_training.stage_start import begin
from actionformer_nt.self_training.stages import place
from actionformer_nt.self_training.trainer import SemiTrainer
from actionformer_nt.spot.pseudo_masks import SpotPseudo
from actionformer_nt.spot.whole_videos import compose, cut
from actionformer_nt.spot.windows import windows
from actionformer_nt.stage_sections import StageSection
from libs.core import load_config
from libs.training.checkpoint import load_checkpoint

LABELED = {"learn": "labeled", "iterations": 3}
FROZEN = {"learn": "pseudo", "iterations": 3, "teacher": "frozen"}
STORED = FROZEN | {"labels": "stored"}
PLAIN = {"strong": {"snippet_mask": 0.0, "channel_dropout": 0.0}, "dataset": {"crop_ratio": None}}


def train(path, folder, **options):
    return semi_run.train(load_config(path), folder, progress=False, **options)


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights(folder, key="state_dict", file="last.pth.tar"):
    return load_checkpoint(folder / file)[key]


def whole_video(run):
    return {**run.stages.unlabeled[0], "feats": torch.randn(8, 60, generator=torch.Generator().manual_seed(0))}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.fixture
def staged(make_semi):
    """A configuration with the given stages, for ActionFormer's architecture or SPOT."""

    def make(*stages, arch=None, **settings):
        path = make_semi(arch=arch, stages=list(stages), burn_in=0, iterations=0, **settings)
        if arch == "SPOT":
            raw = yaml.safe_load(path.read_text())
            raw["model"] = raw["model"] | {"pseudo": raw["model"]["pseudo"] | {"align": False}}
            path.write_text(yaml.safe_dump(raw))
        return path

    return make


class TestPlan:
    def test_one_line_is_todays_online_scheme(self, make_semi, staged, tmp_path):
        short = train(make_semi(burn_in=3, iterations=4, warmup_iterations=2), tmp_path / "short")
        stages = [LABELED, {"learn": "pseudo", "iterations": 4, "teacher": "online", "schedule": "continued"}]
        long = train(staged(*stages, warmup_iterations=2), tmp_path / "long")
        assert same(weights(short), weights(long)) and same(
            weights(short, "state_dict_ema"), weights(long, "state_dict_ema")
        )
        assert records(short) == records(long)

    def test_places(self):
        stages = [
            StageSection(learn="pretext", iterations=5),
            StageSection(learn="labeled", iterations=7, opt={"learning_rate": 0.5, "warmup_iterations": 2}),
            StageSection(learn="pseudo", iterations=2, schedule="continued"),
            StageSection(learn="pseudo", iterations=4),
        ]
        semi = SemiSection(split={"file": "s"}, method="nt", stages=stages, warmup_iterations=1)
        found = [(s.number, s.start, s.end, s.schedule_start, s.schedule_end) for s in place(semi)]
        assert found == [(1, 0, 5, 0, 5), (2, 5, 12, 5, 14), (3, 12, 14, 5, 14), (4, 14, 18, 14, 18)]
        assert [s.opt.learning_rate for s in place(semi)] == [None, 0.5, 0.5, None]
        assert [s.warmup for s in place(semi)] == [1, 2, 2, 1]

    def test_rounds_are_stages_of_their_own(self):
        semi = SemiSection.model_validate(
            {"split": {"file": "s"}, "method": "nt", "stages": [LABELED, FROZEN | {"repeat": 3}]}
        )
        assert [s.learn for s in semi.plan()] == ["labeled", "pseudo", "pseudo", "pseudo"]

    @pytest.mark.parametrize(
        ("stages", "message"),
        [
            ([], "found none"),
            ([FROZEN], "labeled, then pseudo; found pseudo|the first one has no stage before it"),
            ([FROZEN, LABELED], "expected pretext .if any., then labeled, then pseudo; found pseudo, labeled"),
            ([LABELED | {"schedule": "continued"}], "the first one has no stage before it"),
            ([LABELED, FROZEN | {"refresh_every": 5}], "refresh_every: without effect for teacher: frozen"),
            ([LABELED | {"teacher": "online"}], "teacher: without effect for learn: labeled"),
            ([LABELED, FROZEN | {"teacher": "online", "labels": "stored"}], "labels: stored needs teacher: frozen"),
            ([LABELED, FROZEN | {"teacher": "online", "student": "fresh"}], "student: fresh needs teacher: frozen"),
            ([LABELED, FROZEN | {"schedule": "continued", "student": "fresh"}], "schedule: continued goes on"),
            ([LABELED, FROZEN | {"schedule": "continued", "opt": {"learning_rate": 1}}], "schedule: continued goes on"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, staged, stages, message):
        with pytest.raises(ValueError, match=message):
            load_config(staged(*stages))

    def test_messages_name_the_key_within_a_stage(self, staged):
        with pytest.raises(ValueError, match=r"unknown key 'semi_cfg\.stages\.1\.teachr' .*did you mean 'teacher'"):
            load_config(staged(LABELED, {"learn": "pseudo", "iterations": 3, "teachr": "frozen"}))
        with pytest.raises(ValueError, match=r"semi_cfg\.stages\.0\.learn: 'labelled'"):
            load_config(staged(LABELED | {"learn": "labelled"}))
        with pytest.raises(ValueError, match=r"semi_cfg\.stages\.0\.opt\.learning_rate: -1"):
            load_config(staged(LABELED | {"opt": {"learning_rate": -1}}))

    def test_lengths_beside_stages_are_refused(self, make_semi):
        with pytest.raises(ValueError, match="burn_in, iterations: without effect beside stages"):
            load_config(make_semi(stages=[LABELED, FROZEN]))

    def test_weak_views_beside_stored_labels_are_refused(self, staged):
        with pytest.raises(ValueError, match="weak: without effect, since all pseudo labels are stored"):
            set_up(load_config(staged(LABELED, STORED, weak={"shift": 1})))

    def test_a_warm_up_longer_than_its_schedule_is_refused(self, staged, tmp_path):
        with pytest.raises(ValueError, match="stage 2: 5 iterations of warm-up, but its schedule has 3"):
            train(staged(LABELED, FROZEN | {"opt": {"warmup_iterations": 5}}), tmp_path / "run")

    def test_the_unlabeled_loss_rises_over_all_rounds(self, staged, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr("actionformer_nt.self_training.iteration.ramp", lambda *a: asked.append(a) or ramp(*a))
        train(staged(LABELED, FROZEN | {"repeat": 2}, ramp_up=10), tmp_path / "run")
        assert asked == [(k, 10) for k in range(6)]

    def test_a_resolved_configuration_is_read_again(self, staged, tmp_path):
        folder = train(staged(LABELED, STORED | {"opt": {"learning_rate": 1e-3}}), tmp_path / "run")
        assert load_config(folder / "config.yaml")["semi_cfg"]["stages"][1]["labels"] == "stored"


class TestSchedule:
    def test_each_stage_has_its_own_rate_that_falls_to_zero(self, staged, tmp_path):
        path = staged(LABELED, FROZEN | {"repeat": 2, "opt": {"learning_rate": 0.5e-3}})
        rates = [line["lr"] for line in records(train(path, tmp_path / "run"))]
        base = load_config(path)["opt"]["learning_rate"]
        cosine = [0.75, 0.25, 0.0]  # after one, two and three of three steps
        assert rates == pytest.approx([base * c for c in cosine] + [0.5e-3 * c for c in cosine] * 2, abs=1e-12)

    def test_the_optimizer_of_a_stage_may_be_another(self, staged, tmp_path):
        folder = train(staged(LABELED, FROZEN | {"opt": {"type": "SGD", "momentum": 0.5}}), tmp_path / "run")
        groups = load_checkpoint(folder / "last.pth.tar")["optimizer"]["param_groups"]
        assert groups[0]["momentum"] == 0.5 and "betas" not in groups[0]
        again = train(staged(LABELED, FROZEN | {"opt": {"type": "SGD", "momentum": 0.5}}), folder, resume=folder)
        assert len(records(again)) == 6


class TestTeacher:
    def teachers(self, path, folder, monkeypatch):
        """Teacher's weights at every iteration of self-training, and the averages before it."""
        seen, step = [], SemiTrainer.step

        def spy(trainer, videos):
            average = copy.deepcopy(trainer.run.ema.module.state_dict())
            values = step(trainer, videos)
            seen.append((copy.deepcopy(trainer.run.teacher.network.state_dict()), average))
            return values

        monkeypatch.setattr(SemiTrainer, "step", spy)
        train(path, folder)
        return seen

    def test_a_frozen_teacher_is_the_average_of_the_stage_before(self, staged, tmp_path, monkeypatch):
        seen = self.teachers(staged(LABELED, FROZEN | {"repeat": 2}), tmp_path / "run", monkeypatch)
        first, second = seen[3][1], seen[6][1]
        assert all(same(teacher, first) for teacher, _ in seen[3:6]) and not same(first, second)
        assert all(same(teacher, second) for teacher, _ in seen[6:])

    def test_a_refreshed_teacher_is_replaced_by_the_average(self, staged, tmp_path, monkeypatch):
        stage = FROZEN | {"teacher": "refreshed", "refresh_every": 2, "iterations": 5, "student": "fresh"}
        seen = self.teachers(staged(LABELED, stage), tmp_path / "run", monkeypatch)
        before = weights(tmp_path / "run", "state_dict_ema", "burn_in.pth.tar")
        before = {name.removeprefix("module."): value for name, value in before.items()}
        used = [before, before, seen[5][1], seen[5][1], seen[7][1]]
        assert [same(t, u) for (t, _), u in zip(seen[3:], used, strict=True)] == [True] * 5

    def test_a_fresh_student_has_new_modules_of_its_method(self, staged, tmp_path, monkeypatch):
        """Otherwise they would judge the features of a network that they do not know."""
        from actionformer_nt.methods.plr import Plr

        renewed = []
        monkeypatch.setattr(Plr, "renew", lambda self: renewed.append(self.updates))
        stages = [LABELED, FROZEN, FROZEN | {"student": "fresh"}]
        run = set_up(load_config(staged(*stages, method="plr", pseudo={"threshold": 0.012})))
        first = {name: value.clone() for name, value in run.model.method_modules.state_dict().items()}
        for number, learns in ((1, False), (2, True)):
            torch.nn.init.ones_(run.model.method_modules.last.bias)
            begin(run, run.stages.stages[number], run.stages.stages[number].start, tmp_path)
            assert bool(run.model.method_modules.last.bias.any()) != learns
        now = run.model.method_modules.state_dict()
        assert renewed == [0] and not torch.equal(now["hidden.weight"], first["hidden.weight"])
        for name, value in run.ema.module.method_modules.state_dict().items():
            assert torch.equal(value, now[name])

    def test_a_fresh_student_has_new_weights_of_its_seed(self, staged, tmp_path):
        config = load_config(staged(LABELED, FROZEN | {"student": "fresh"}))
        runs = [set_up(config), set_up(config)]
        start = copy.deepcopy(runs[0].model.state_dict())
        for run in runs:
            torch.manual_seed(len(start))  # the generator of training has no influence, and is not changed
            before = torch.get_rng_state()
            begin(run, run.stages.at(3), 3, tmp_path)
            assert torch.equal(torch.get_rng_state(), before)
            assert same(run.model.state_dict(), run.ema.module.state_dict()) and run.ema.num_updates == 0
        assert same(runs[0].model.state_dict(), runs[1].model.state_dict())
        assert not same(runs[0].model.state_dict(), start)
        assert same(runs[0].teacher.network.state_dict(), start)  # the average before the stage

    def test_labels_only_has_the_same_stages_and_keeps_its_weights(self, staged, tmp_path):
        fresh = train(staged(LABELED, STORED | {"student": "fresh"}, method="labeled_only"), tmp_path / "fresh")
        warm = train(staged(LABELED, STORED, method="labeled_only"), tmp_path / "warm")
        assert len(records(fresh)) == 6 and not any("unlabeled/loss" in line for line in records(fresh))
        assert same(weights(fresh), weights(warm)) and records(fresh) == records(warm)


class TestResume:
    STAGES = {
        None: [
            LABELED,
            STORED | {"repeat": 2, "student": "fresh"},
            FROZEN | {"teacher": "refreshed", "refresh_every": 2},
        ],
        "SPOT": [{"learn": "pretext", "iterations": 2}, LABELED, STORED, FROZEN | {"student": "fresh"}],
    }  # fmt: skip

    @pytest.mark.parametrize("arch", [None, "SPOT"])
    def test_interrupted_anywhere_it_ends_the_same(self, staged, tmp_path, interrupted, arch):
        path = staged(*self.STAGES[arch], arch=arch, strong={"flip": 0.5}, method="complementary")
        whole = train(path, tmp_path / "whole")
        for stop in range(1, len(records(whole))):
            half = tmp_path / f"half{stop}"

            with interrupted(stop):
                train(path, half)
            if stop % 2:
                shutil.rmtree(half / "pseudo_labels", ignore_errors=True)  # made again by the same teacher
            train(path, half, resume=half)
            for key in ("state_dict", "state_dict_ema"):
                assert same(weights(whole, key), weights(half, key)), stop
            assert records(whole) == records(half), stop

    def test_a_shared_burn_in_gives_the_same_end(self, staged, tmp_path):
        path = staged(LABELED, STORED | {"repeat": 2})
        whole = train(path, tmp_path / "whole")
        config = load_config(path)
        config["semi_cfg"]["burn_in_checkpoint"] = str(whole / "burn_in.pth.tar")
        assert same(weights(whole), weights(semi_run.train(config, tmp_path / "shared", progress=False)))


class TestStoredLabels:
    @pytest.mark.parametrize("arch", [None, "softmax", "SPOT"])
    def test_they_equal_those_of_every_iteration_without_views(self, staged, tmp_path, arch):
        """Whole videos, no perturbation, one video at a time: the same computation, so the same run."""
        plain = PLAIN | {"unlabeled_batch_size": 1}
        stored = train(staged(LABELED, STORED, arch=arch, **plain), tmp_path / "stored")
        views = train(staged(LABELED, FROZEN, arch=arch, **plain), tmp_path / "views")
        assert records(stored)[-1]["pseudo/segments"] > 0
        assert same(weights(stored), weights(views))
        assert records(stored) == records(views)

    @pytest.mark.parametrize("arch", [None, "SPOT"])
    def test_they_are_in_the_run_folder_and_read_from_there(self, staged, tmp_path, monkeypatch, arch):
        path = staged(LABELED, STORED, arch=arch)
        folder = train(path, tmp_path / "run")
        content = json.loads((folder / "pseudo_labels" / "stage_2.json").read_text())
        split = json.loads((tmp_path / "semi_split.json").read_text())
        assert sorted(content["results"]) == sorted(split["orders"][0][2:])
        assert all(0 <= d["segment"][0] < d["segment"][1] for video in content["results"].values() for d in video)
        run = set_up(load_config(path))
        trainer = SemiTrainer(run, observer=lambda snapshot: None)
        trainer.restore(folder / "last.pth.tar")
        stage = run.stages.at(5)
        monkeypatch.setattr(type(run.teacher.self_training), "find_in_whole_videos", None)  # must not be called
        begin(run, stage, 5, folder)
        assert sorted(run.teacher.stored) == sorted(content["results"])
        monkeypatch.undo()
        with torch.no_grad():
            next(run.teacher.frozen.module.parameters()).add_(1.0)
        used = run.teacher.stored
        begin(run, stage, 5, folder)  # those of another teacher are made anew
        assert any(
            not torch.equal(run.teacher.self_training.segments(used[v]).scores,
                            run.teacher.self_training.segments(run.teacher.stored[v]).scores) for v in used
        )  # fmt: skip

    def test_hidden_labels_change_nothing(self, staged, tmp_path):
        path = staged(LABELED, STORED | {"student": "fresh"}, log_hidden=False)
        whole = train(path, tmp_path / "whole")
        file = path.parent / "annotations.json"
        content = json.loads(file.read_text())
        labeled = set(json.loads((tmp_path / "semi_split.json").read_text())["orders"][0][:2])
        for video, entry in content["database"].items():
            if entry["subset"] == "training" and video not in labeled:
                entry["annotations"] = [{"segment": "broken"}]
        file.write_text(json.dumps(content))
        other = train(path, tmp_path / "other")
        assert same(weights(whole), weights(other))
        stored = [(f / "pseudo_labels" / "stage_2.json").read_text() for f in (whole, other)]
        assert stored[0] == stored[1]

    def test_what_cannot_be_cut_is_refused(self, staged, make_semi, tmp_path):
        path = staged(LABELED, STORED, pseudo={"background": "partition", "background_logit": 0.0})
        with pytest.raises(ValueError, match="labels: stored: pseudo labels at points"):
            train(path, tmp_path / "run")
        path = make_semi(arch="SPOT", stages=[LABELED, STORED], burn_in=0, iterations=0)
        with pytest.raises(ValueError, match="align: true: the alignment follows the student"):
            train(path, tmp_path / "run")

    def test_a_crop_has_the_segments_that_are_half_visible_in_it(self, staged):
        run = set_up(load_config(staged(LABELED, STORED)))
        self_training = run.teacher.self_training
        (whole,) = self_training.select_jointly(
            self_training.find_in_whole_videos(run.ema.module, [run.stages.unlabeled[0]])
        )
        feats = run.stages.unlabeled[0]["feats"][:, 10:40]
        part = self_training.cut(whole, {"video_id": "v", "feats": feats, "feat_start": 10})
        kept = []
        for a, b in whole.segments.segments.tolist():
            visible = min(b - 10, 29.5) - max(a - 10, -0.5)
            if visible > 0 and visible >= 0.5 * (b - a):
                kept.append([a - 10, b - 10])
        assert 0 < len(kept) < len(whole.segments.scores)
        torch.testing.assert_close(part.segments.segments, torch.tensor(kept))

    @given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 39), st.integers(0, 2**31))
    def test_cut_windows_against_loops(self, length, num_steps, start, seed):
        parts, generator = windows(length, num_steps, 0.5), torch.Generator().manual_seed(seed)
        labels = [
            SpotPseudo(
                torch.rand(1, num_steps, 3, generator=generator), torch.rand(1, num_steps, generator=generator) > 0.5,
                (torch.rand(1, num_steps, num_steps, generator=generator) > 0.5).float(),
                torch.rand(1, num_steps, generator=generator) > 0.5,
                *(torch.rand(1, num_steps, generator=generator) for _ in range(2)),
            )
            for _ in parts
        ]  # fmt: skip
        start = min(start, length - 1)
        size = min(num_steps, length - start)
        found = cut(compose(parts, labels), start, size, num_steps=num_steps)
        for i in range(size):
            snippet = start + i
            depth = [min(snippet - w.start, w.start + w.length - 1 - snippet) for w in parts]
            best = depth.index(max(depth))
            row = snippet - parts[best].start
            assert torch.equal(found.probs[0, i], labels[best].probs[0, row])
            assert found.confident[0, i] == labels[best].confident[0, row]
            assert found.mask_rows[0, i] == labels[best].mask_rows[0, row]
            assert found.sharpness[0, i] == labels[best].sharpness[0, row]
            assert found.quality[0, i] == labels[best].quality[0, row]
            for j in range(size):
                column = start + j - parts[best].start
                inside = 0 <= column < num_steps
                assert found.masks[0, i, j] == (labels[best].masks[0, row, column] if inside else 0)
        assert (
            not found.confident[0, size:].any()
            and not found.masks[0, size:].any()
            and not found.masks[0, :, size:].any()
        )

    def test_a_run_that_was_killed_after_they_were_made_ends_the_same(self, staged, tmp_path, interrupted):
        """Making them changes no running state, so reading them is the same."""
        stages = [LABELED, STORED, FROZEN]
        path = staged(*stages, pseudo={"select": "rate", "rate_floor": 0.012}, ckpt_every=100)
        whole = train(path, tmp_path / "whole")

        with interrupted(4):
            train(path, tmp_path / "half")
        (tmp_path / "half" / "burn_in.pth.tar").rename(tmp_path / "half" / "last.pth.tar")
        half = train(path, tmp_path / "half", resume=tmp_path / "half")
        assert same(weights(whole), weights(half)) and records(whole)[-1] == records(half)[-1]

    @pytest.mark.parametrize("changed", ["seed", "teacher_views"])
    def test_they_are_made_again_where_what_they_depend_on_has_changed(self, staged, tmp_path, monkeypatch, changed):
        path = staged(LABELED, STORED, teacher_views=[{"shift": 1}])
        folder = train(path, tmp_path / "run")
        config = load_config(path)
        if changed == "seed":
            config["init_rand_seed"] += 1
        else:
            config["semi_cfg"]["teacher_views"] = [{"shift": 2}]
        run, asked = set_up(config), []
        trainer = SemiTrainer(run, observer=lambda snapshot: None)
        trainer.restore(folder / "last.pth.tar")
        find = type(run.teacher.self_training).find_in_whole_videos
        monkeypatch.setattr(
            type(run.teacher.self_training), "find_in_whole_videos", lambda *args: asked.append(args) or find(*args)
        )
        begin(run, run.stages.at(5), 5, folder)
        assert len(asked) == 6

    def test_long_videos_may_have_more_proposals_than_samples(self, staged):
        run = set_up(load_config(staged(LABELED, STORED, pseudo={"max_segments": 4}, dataset={"max_seq_len": 32})))
        ((proposals, _),) = run.teacher.self_training.find_in_whole_videos(run.ema.module, [whole_video(run)])
        assert len(proposals.scores) == 8  # 60 steps are 1.9 samples

    def test_a_damaged_file_is_made_again(self, staged, tmp_path, caplog):
        path = staged(LABELED, STORED)
        folder = train(path, tmp_path / "run")
        file = folder / "pseudo_labels" / "stage_2.pt"
        whole = file.read_bytes()
        run = set_up(load_config(path))
        trainer = SemiTrainer(run, observer=lambda snapshot: None)
        trainer.restore(folder / "last.pth.tar")
        file.write_bytes(whole[: len(whole) // 2])
        begin(run, run.stages.at(5), 5, folder)
        assert "stage_2.pt cannot be read and is made again" in caplog.text
        assert len(file.read_bytes()) == len(whole) and len(run.teacher.stored) == 6

    def test_snapshots_show_them(self, staged, tmp_path):
        path = staged(LABELED, STORED, teacher_views=[{"shift": 2}], **PLAIN)
        folder = train(path, tmp_path / "run")
        shown = json.loads((folder / "samples" / "iteration_00000006.json").read_text())["results"]
        stored = json.loads((folder / "pseudo_labels" / "stage_2.json").read_text())["results"]
        assert shown and all(shown[video] == stored[video] for video in shown)
        train(path, folder, resume=folder)  # a finished run: the last snapshot is written again
        again = json.loads((folder / "samples" / "iteration_00000006.json").read_text())["results"]
        assert again == shown

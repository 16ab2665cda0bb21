"""The watch over pseudo labels: figures against loops, ranges, a planted collapse, what does not fire, exact resume."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actionformer_nt import run as semi_run
from actionformer_nt.commands.main import main
from actionformer_nt.config import SemiSection, WatchSection
from actionformer_nt.protocol.hidden_labels import HiddenLabels
from actionformer_nt.protocol.splits import read_split
from actionformer_nt.self_training.interface import self_training_of
from actionformer_nt.self_training.pseudo_segments import PseudoSegments
from actionformer_nt.self_training.setup import set_up
from actionformer_nt.self_training.trainer import SemiTrainer
from actionformer_nt.self_training.watch import CollapseError, Watch
from actionformer_nt.self_training.watch_advice import advice_of
from actionformer_nt.self_training.watch_ranges import (
    LabeledRange,
    Totals,
    View,
    length_of_union,
    total_of,
    view_of_segments,
    window_starts,
)
from libs.core import distributed, load_config
from libs.datasets import make_dataset
from libs.datasets.annotations import read_annotations
from libs.training.checkpoint import load_checkpoint

CONFIGS = Path(__file__).parents[3] / "configs" / "semi"
ARCHITECTURES = ("LocPointTransformer", "SPOT")
spans = st.tuples(st.integers(-5, 30), st.integers(0, 12)).map(lambda s: (s[0], s[0] + s[1]))
segment_lists = st.lists(st.tuples(spans, st.integers(0, 2)), max_size=8)


@given(st.lists(spans, max_size=8))
def test_length_of_a_union_is_the_number_of_its_cells(segments):
    assert length_of_union(segments) == len({cell for start, end in segments for cell in range(start, end)})


@given(segment_lists, st.integers(0, 10), st.integers(1, 20))
def test_what_is_seen_of_segments(found, start, steps):
    """Segments in halves of steps, counted half step by half step."""
    view = view_of_segments(
        [[a / 2, b / 2] for (a, b), _ in found], [c for _, c in found], start=start, steps=steps, step_seconds=0.5
    )
    low, high = 2 * start - 1, 2 * (start + steps) - 1
    cells = [(c, set(range(max(a, low), min(b, high)))) for (a, b), c in found]
    seen = [(c, own) for c, own in cells if own]
    assert view.seconds == steps / 2
    assert view.counts == {c: sum(other == c for other, _ in seen) for c in {c for c, _ in seen}}
    assert view.times == {c: len(set().union(*(own for o, own in seen if o == c))) / 4 for c in view.counts}
    assert view.covered == len(set().union(*(own for _, own in seen))) / 4
    assert view.longest == max((len(own) for _, own in seen), default=0) / 4


@given(st.integers(1, 60), st.integers(1, 20))
def test_windows_cover_every_step(length, window):
    starts = window_starts(length, window)
    assert {s for start in starts for s in range(start, start + min(window, length))} == set(range(length))
    assert len(set(starts)) == len(starts)


def recording(found, steps=40):
    return [view_of_segments([s for s, _ in found], [c for _, c in found], start=0, steps=steps, step_seconds=0.5)]


def range_of(found_lists):
    events = {c: sum(c == other for found in found_lists for _, other in found) for c in range(3)}
    return LabeledRange([recording(found) for found in found_lists], events)


labeled_lists = st.lists(segment_lists.filter(bool), min_size=1, max_size=4)


@given(labeled_lists, st.integers(1, 30))
def test_the_labeled_videos_themselves_are_within_their_range(found_lists, times):
    pseudo = total_of([view for found in found_lists for view in recording(found)] * times)
    if pseudo.segments:
        assert not [finding for finding in range_of(found_lists).judge(pseudo) if finding.outside]


USUAL = [((2, 8), 0), ((12, 18), 1), ((22, 28), 2), ((30, 36), 0)]  # 20 s: 12 segments a minute, .6 of the time


CLASSES = {"class_share", "class_time", "class_events_per_minute"}


@pytest.mark.parametrize(
    ("pseudo", "fires"),
    [
        (USUAL, set()),
        ([((3, 9), 0), ((13, 17), 1), ((24, 27), 2)], set()),
        ([((-1, 41), 0)], CLASSES | {"one_segment", "one_class", "time_share"}),
        ([((-1, 20), 0), ((20, 41), 0)], CLASSES | {"one_class", "time_share"}),
        ([((2, 8), 0), ((12, 18), 0), ((22, 28), 0), ((30, 36), 0)], CLASSES),
        ([((k, k + 0.5), k % 3) for k in range(1, 38)], {"events_per_minute", "class_events_per_minute"}),
        ([((2, 8), 0), ((12, 16), 0), ((22, 24), 0), ((30, 32), 0), ((33, 34), 1)], CLASSES - {"class_share"}),
        ([((2, 4), 0)], CLASSES | {"time_share"}),
        ([], {"coverage", "events_per_minute", "time_share", "class_events_per_minute"}),
    ],
)
def test_what_leaves_the_range(pseudo, fires):
    labeled = range_of([USUAL] * 6)
    found = labeled.judge(total_of(recording(pseudo) * 50))
    assert {finding.name for finding in found if finding.outside} == fires


def test_a_few_odd_videos_do_not_fire():
    labeled, odd = range_of([USUAL] * 2), recording([((-1, 41), 0)])
    assert not any(f.outside for f in labeled.judge(total_of(recording(USUAL) * 92 + odd * 8)))
    assert any(f.outside for f in labeled.judge(total_of(recording(USUAL) * 85 + odd * 15)))


def test_where_labeled_events_fill_whole_videos_pseudo_segments_may():
    whole = [((-1, 41), 0)]
    labeled = range_of([whole, whole, USUAL])
    assert not any(f.outside for f in labeled.judge(total_of(recording(whole) * 20 + recording(USUAL) * 10)))


def test_quantities_are_in_real_units(make_data, event):
    """8 s of features (60 steps of 4 frames at 30 frames a second); a third of them in events."""
    events = {f"v{i}": [event(1.0, 2.0, 0), event(5.0, 6.0 + 2 / 3, 1)] for i in range(2)}
    config = load_config(make_data(events, subsets=dict.fromkeys(events, "training"), steps=60))
    dataset = make_dataset(config["dataset_name"], True, ["training"], **config["dataset"])
    labeled = LabeledRange.of(dataset).all
    assert labeled.rate() == pytest.approx(2 / (8 / 60)) and labeled.rate(0) == pytest.approx(1 / (8 / 60))
    assert labeled.covered / labeled.seconds == pytest.approx(1 / 3, rel=1e-5) and labeled.views == 2


def test_longer_recordings_are_seen_through_windows(make_data, event):
    events = {"v0": [event(0.0, 8.0, 0), event(20.0, 21.0, 1)]}
    config = load_config(make_data(events, subsets={"v0": "training"}, steps=240))  # 32 s, in windows of 64 steps
    dataset = make_dataset(config["dataset_name"], True, ["training"], **config["dataset"])
    labeled = LabeledRange.of(dataset).all
    windows = len(window_starts(240, 64))
    assert labeled.views == pytest.approx(1) and labeled.seconds == pytest.approx(64 * 4 / 30)
    assert labeled.one_segment == pytest.approx(1 / windows) and 0 < labeled.with_segment < 1  # the first is filled


# ---- in a run


def whole_video_of_class_0(monkeypatch, arch):
    """From now on, the head of every teacher predicts class 0 over whole videos."""
    adapter = self_training_of(arch)
    pseudo_labels = adapter.pseudo_labels

    @torch.no_grad()
    def planted(self, teacher, videos, further=(), **options):
        if arch == "SPOT":
            teacher.net.class_head.weight.zero_(), teacher.net.class_head.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
        else:
            for layer, bias in ((teacher.cls_head.cls_head, [6.0, -6.0]), (teacher.reg_head.offset_head, [99.0, 99.0])):
                layer.conv.weight.zero_(), layer.conv.bias.copy_(torch.tensor(bias))
        return pseudo_labels(self, teacher, videos, further, **options)

    monkeypatch.setattr(adapter, "pseudo_labels", planted)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def watch_file(folder):
    return json.loads((folder / "watch.json").read_text())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_planted_collapse_is_told(make_semi, tmp_path, monkeypatch, caplog, arch):
    whole_video_of_class_0(monkeypatch, arch)
    path = make_semi(arch=arch, watch={"videos": 4}, iterations=6)
    folder = semi_run.train(load_config(path), tmp_path / "run", progress=False)
    lines = lines_of(folder)
    assert not any(name.startswith("watch/") for line in lines[:4] for name in line)
    assert lines[4]["watch/one_segment"] == lines[-1]["watch/one_class"] == lines[-1]["watch/time_share"] == 1
    told = [record.getMessage() for record in caplog.records if "watch: " in record.getMessage()]
    content = watch_file(folder)
    assert len(told) == len(content["warnings"]) >= 3  # each quantity once
    assert all(warning["iteration"] == 6 for warning in content["warnings"])  # not before four videos were seen
    (one,) = [message for message in told if "a single pseudo segment fills" in message]
    assert "1, where the labeled videos have 0 and 0 to 0.1 is expected" in one and "a longer burn-in" in one
    assert content["videos"] == 4 and content["recordings"] == 2
    assert {c["name"]: c["share"] for c in content["classes"]} == {"class0": 1.0, "class1": 0.0}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_collapse_can_stop_the_run(make_semi, tmp_path, monkeypatch, capsys, arch):
    whole_video_of_class_0(monkeypatch, arch)
    path = make_semi(arch=arch, watch={"videos": 4}, iterations=6, ckpt_every=100, on_collapse="stop")
    folder = tmp_path / "run"
    with pytest.raises(CollapseError, match=r"on_collapse is stop.*where the labeled videos have.*What to do"):
        semi_run.train(load_config(path), folder, progress=False)
    assert load_checkpoint(folder / "last.pth.tar")["iteration"] == 6 == lines_of(folder)[-1]["iteration"]
    before = lines_of(folder)
    for _ in range(2):
        assert main(["train", str(path), "--resume", str(folder)]) == 3  # it has not gone away
        assert "on_collapse is stop" in capsys.readouterr().err
    assert load_checkpoint(folder / "last.pth.tar")["iteration"] == 6 and lines_of(folder) == before
    config = load_config(path)
    config["semi_cfg"]["on_collapse"] = "warn"
    semi_run.train(config, folder, resume=folder, progress=False)
    assert load_checkpoint(folder / "last.pth.tar")["iteration"] == 10


@pytest.mark.parametrize("iterations", [3, 6])
def test_a_collapse_at_the_end_is_none_the_less_one(make_semi, tmp_path, monkeypatch, iterations):
    """The last record finds it, when all iterations are done."""
    whole_video_of_class_0(monkeypatch, "LocPointTransformer")
    config = load_config(
        make_semi(watch={"videos": 4}, iterations=iterations, log_every=4 + iterations, on_collapse="stop")
    )
    folder = tmp_path / "run"
    for resume in (None, folder, folder):
        with pytest.raises(CollapseError, match="on_collapse is stop"):
            semi_run.train(config, folder, resume=resume, progress=False)
    assert load_checkpoint(folder / "last.pth.tar")["iteration"] == 4 + iterations
    config["semi_cfg"]["on_collapse"] = "warn"
    semi_run.train(config, folder, resume=folder, progress=False)


def test_a_checkpoint_of_before_has_no_fault(make_semi):
    watch = SemiTrainer(set_up(load_config(make_semi())), observer=lambda snapshot: None).records.watch
    state = watch.state()
    del state["fault"]
    watch.fault = "x"
    watch.load_state(state)
    assert watch.fault is None


def stages(*pseudo):
    return {"stages": [{"learn": "labeled", "iterations": 4}, *pseudo], "burn_in": 0, "iterations": 0}


def test_a_round_is_not_stopped_for_its_predecessor(make_semi, tmp_path, monkeypatch, interrupted):
    """Pseudo labels of before the round are not looked at, also after an interruption at its start or within it."""
    round_of = {"learn": "pseudo", "iterations": 5, "teacher": "frozen"}
    path = make_semi(
        **stages(round_of, round_of), watch={"videos": 4}, log_every=7, ckpt_every=1, samples={"videos": 0}
    )
    found = []
    look = Watch.look

    def spy(self, iteration, folder):
        found.append((iteration, sorted({i for i, _, _ in self.window()})))
        return look(self, iteration, folder)

    monkeypatch.setattr(Watch, "look", spy)
    whole = semi_run.train(load_config(path), tmp_path / "whole", progress=False)
    assert found == [(7, [5, 6]), (14, [12, 13])]
    for stop, first in ((9, [9]), (11, [9, 10, 11])):
        found.clear()
        config = load_config(path)
        config["semi_cfg"]["log_every"] = stop + 1

        with interrupted(stop):
            semi_run.train(config, tmp_path / f"half{stop}", progress=False)
        semi_run.train(config, tmp_path / f"half{stop}", resume=tmp_path / f"half{stop}", progress=False)
        assert found[0] == (stop + 1, first[-2:])
    assert len(lines_of(whole)) == 2


KEYS = r"((?:semi_cfg|model)\.[a-z_.]*[a-z_])(?:: ([a-z]+))?"
ONLINE = {"learn": "pseudo", "iterations": 3, "teacher": "online"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    "semi",
    [
        {}, {"pseudo": {"source": "refresh"}}, stages(ONLINE), stages(ONLINE | {"teacher": "frozen"}),
        {"pseudo": {"select": "topk"}}, {"pseudo": {"select": "rate"}},
    ],
)  # fmt: skip
def test_what_it_advises_can_be_set(make_semi, arch, semi):
    """Every key that is named is one of this configuration, and every value is accepted."""
    if arch == "SPOT" and "select" in semi.get("pseudo", {}):
        semi = {}
    path = make_semi(arch=arch, **semi)
    config = load_config(path)
    advice = advice_of(SemiSection.model_validate(config["semi_cfg"]), config["model"])
    told = [text for quantity in advice.values() for text in quantity if text]
    keys = {match for text in told for match in re.findall(KEYS, text)}
    assert {key for key, _ in keys} >= {"semi_cfg.alpha", f"semi_cfg.{'stages' if 'stages' in semi else 'burn_in'}"}
    assert ("model.pseudo.threshold" in {key for key, _ in keys}) == (arch == "SPOT")
    for key, value in keys:
        section = config
        for name in key.split("."):
            assert name in section, key
            section = section[name]
        changed = load_config(path, overrides=[f"{key}={value or json.dumps(section)}"])
        set_up(changed)
    assert any("teacher" in text for text in told) == (semi != stages(ONLINE | {"teacher": "frozen"}))
    assert any("teacher: frozen in semi_cfg.stages" in text for text in told) == (semi == stages(ONLINE))


def test_what_has_no_effect_is_refused(make_semi):
    with pytest.raises(ValueError, match=r"on_collapse: stop: without effect while watch\.videos is 0"):
        load_config(make_semi(on_collapse="stop", watch={"videos": 0}))
    with pytest.raises(ValueError, match=r"pseudo\.refresh_every: without effect beside stages"):
        load_config(make_semi(**stages(ONLINE | {"teacher": "refreshed"}), pseudo={"refresh_every": 7}))
    for key, value, setting in (
        ("topk", 3, "select"),
        ("rate_floor", 0.2, "select"),
        ("background_weight", 0.1, "background"),
    ):
        with pytest.raises(ValueError, match=f"pseudo: {key}: {value}: without effect for {setting}"):
            load_config(make_semi(pseudo={key: value}))
    spot = make_semi(arch="SPOT", reg_weight=0.5)
    with pytest.raises(ValueError, match=r"semi_cfg\.reg_weight: without effect for model_name: SPOT"):
        set_up(load_config(spot))


def test_true_events_as_pseudo_labels_do_not_fire(make_semi, tmp_path, monkeypatch):
    path = make_semi(watch={"videos": 6}, iterations=6, log_hidden=True, on_collapse="stop")
    run = set_up(load_config(path))
    trainer = SemiTrainer(run, observer=lambda snapshot: None)
    watch, hidden = trainer.records.watch, run.shown
    assert isinstance(hidden, HiddenLabels)
    for iteration in range(10):
        videos = [run.stages.unlabeled[i] for i in range(len(run.stages.unlabeled))]
        pseudo = [
            PseudoSegments(segments, torch.ones(len(labels)), torch.nn.functional.one_hot(labels, 2).float())
            for segments, labels in map(hidden.of, videos)
        ]
        watch.add(iteration, videos, pseudo)
        watch.look(iteration, tmp_path)
    assert watch.error is None and watch.warnings == []


def test_it_can_be_switched_off_and_changes_no_weight(make_semi, tmp_path):
    folders = []
    for videos in (0, 4):
        config = load_config(make_semi(watch={"videos": videos}))
        folders.append(semi_run.train(config, tmp_path / f"run{videos}", progress=False))
    off, on = (load_checkpoint(folder / "last.pth.tar") for folder in folders)
    assert all(torch.equal(value, on["state_dict"][name]) for name, value in off["state_dict"].items())
    assert not (folders[0] / "watch.json").exists()
    without = [{k: v for k, v in line.items() if not k.startswith("watch/")} for line in lines_of(folders[1])]
    assert without == lines_of(folders[0]) and without != lines_of(folders[1])


@pytest.mark.parametrize("stop", [5, 7])
def test_interrupted_it_goes_on_as_if_never_stopped(make_semi, tmp_path, monkeypatch, interrupted, stop):
    whole_video_of_class_0(monkeypatch, "LocPointTransformer")
    path = make_semi(watch={"videos": 5, "every": 3}, iterations=8, log_every=2)
    whole = semi_run.train(load_config(path), tmp_path / "whole", progress=False)

    with interrupted(stop):
        semi_run.train(load_config(path), tmp_path / "half", progress=False)
    half = semi_run.train(load_config(path), tmp_path / "half", resume=tmp_path / "half", progress=False)
    assert lines_of(whole) == lines_of(half) and watch_file(whole) == watch_file(half)
    one, two = (load_checkpoint(folder / "last.pth.tar")["watch"] for folder in (whole, half))
    assert one == two and len(one["views"]) == 5
    repeated = [w["iteration"] for w in watch_file(whole)["warnings"] if w["quantity"] == "one_segment"]
    assert repeated == [8, 12]  # at most every third iteration, of the records at 8, 10 and 12


def random_view(rng):
    counts = {int(c): int(n) for c, n in zip((0, 1), rng.integers(1, 4, 2), strict=True)}
    times = {c: float(rng.random()) for c in counts}
    return View(float(1 + rng.random()), counts, times, sum(times.values()), max(times.values()))


def test_two_processes_find_what_one_does(monkeypatch, tmp_path):
    """Views of a batch are dealt to the processes in turn; windows, curves and states are the same, also after a
    restart with another number of processes."""
    rng = np.random.default_rng(0)
    advice = advice_of(SemiSection(split={"file": "s"}, method="nt", burn_in=1), {})
    batches = [[random_view(rng) for _ in range(4)] for _ in range(6)]

    def watch():
        return Watch(
            WatchSection(videos=7, every=1), stop=True, labeled=lambda: range_of([USUAL]), names={}, advice=advice
        )

    one, two, again = watch(), [watch(), watch()], [watch(), watch(), watch()]

    def deal(watches, iteration):
        for row, view in enumerate(batches[iteration]):
            watches[row % len(watches)].views.append((iteration, row, view))

    def in_each(watches, call):
        results = []
        for rank, each in enumerate(watches):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            monkeypatch.setattr(distributed, "world_size", lambda: len(watches))
            monkeypatch.setattr(distributed, "gather", lambda _: [list(w.views) for w in watches])
            results.append(call(each))
        return results

    for iteration in range(3):
        deal([one], iteration)
        deal(two, iteration)
    (state,) = in_each([one], Watch.state)
    assert in_each(two, Watch.state) == [state, state]
    for each, restored in zip(again, in_each(again, lambda w: w.load_state(state)), strict=True):
        assert restored is None and len(each.views) in (2, 3)
    for iteration in range(3, 6):
        for watches in ([one], two, again):
            deal(watches, iteration)
        found = [in_each(watches, lambda w: w.look(iteration, tmp_path)) for watches in ([one], two, again)]  # noqa: B023
        assert all(values == found[0][0] for part in found for values in part)
    messages = {str(w.error) for w in [one, *two, *again]}
    assert len(messages) == 1 and "None" not in messages and one.warnings == two[1].warnings == again[2].warnings


@pytest.mark.parametrize(
    ("name", "data", "annotations"),
    [
        ("hapt_025", "hapt", "hapt.json"),
        ("spot_hapt_05", "hapt", "hapt.json"),
        ("salads50_10", "salads50", "salads50_eval_split1.json"),
    ],
)
def test_on_real_data_true_events_do_not_fire_and_a_collapse_does(real_data, name, data, annotations):
    """100 random views of unlabeled videos, for every draw of labels; one of them has a single labeled recording."""
    config, folder = load_config(CONFIGS / f"{name}.yaml"), real_data / data
    json_file = folder / "annotations" / annotations
    split_options, known = config["semi_cfg"]["split"], read_annotations(json_file)
    dataset = config["dataset"] | {"json_file": str(json_file), "feat_folder": str(folder / "features")}
    rng = np.random.default_rng(0)
    for fold in range(5):
        split = read_split(CONFIGS.parents[1] / split_options["file"], split_options["ratio"], fold)
        labeled, unlabeled = (
            make_dataset(
                config["dataset_name"], True, config["train_split"], **dataset, annotations=known,
                video_ids=frozenset(ids),
            )
            for ids in (split.labeled, split.unlabeled)
        )  # fmt: skip
        found = LabeledRange.of(labeled)
        true, collapsed = Totals(), Totals()
        for i in rng.integers(len(unlabeled), size=100).tolist():
            grid, (segments, labels) = unlabeled.grid(i), unlabeled.events(i)
            steps = min(grid.length, unlabeled.max_seq_len)
            start = int(rng.integers(grid.length - steps + 1))
            seconds = grid.stride / (unlabeled.videos[i].fps or unlabeled.default_fps)
            shape = {"start": start, "steps": steps, "step_seconds": seconds}
            true.add(view_of_segments(segments.tolist(), labels.tolist(), **shape))
            collapsed.add(view_of_segments([(-1, grid.length)], [max(found.events, key=found.events.get)], **shape))
        assert not [finding for finding in found.judge(true) if finding.outside]
        outside = {finding.name for finding in found.judge(collapsed) if finding.outside}
        assert {"class_share", "class_time", "one_segment", "one_class", "time_share"} <= outside

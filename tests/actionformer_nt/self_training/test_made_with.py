"""A run goes on only from a checkpoint of the same labels, stages and schedule."""

import json
import logging

import pytest
import torch

from actionformer_nt import run as semi_run
from actionformer_nt.protocol.split_file import digest
from actionformer_nt.protocol.splits import make_splits, split_of, write_splits
from actionformer_nt.self_training.setup import set_up
from libs.core import load_config
from libs.datasets.annotations import read_annotations
from libs.training.checkpoint import load_checkpoint

FROZEN = {"learn": "pseudo", "iterations": 3, "teacher": "frozen"}


def labeled(iterations, **options):
    return {"learn": "labeled", "iterations": iterations} | options


@pytest.fixture
def config_of(make_semi):
    """A resolved configuration with the given stages; further keys are those of `semi_cfg`."""

    def make(*stages, **semi):
        lengths = {"stages": list(stages), "burn_in": 0, "iterations": 0} if stages else {}
        return load_config(make_semi(**lengths, **semi))

    return make


def changed(config, **semi):
    config = json.loads(json.dumps(config))
    config["semi_cfg"] |= semi
    return config


def train(config, folder, **options):
    return semi_run.train(config, folder, progress=False, **options)


def from_burn_in(config, folder, made):
    return train(changed(config, burn_in_checkpoint=str(made / "burn_in.pth.tar")), folder)


def rates(folder):
    return [json.loads(line)["lr"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def older(folder):
    """Makes the checkpoints of a folder those of an earlier version."""
    for path in folder.glob("*.pth.tar"):
        state = load_checkpoint(path)
        del state["made_with"]
        torch.save(state, path)


@pytest.mark.parametrize("without_entry", [False, True])
def test_another_fold_or_ratio_is_refused(config_of, tmp_path, interrupted, without_entry):
    config = config_of(labeled(3), FROZEN)
    made = train(config, tmp_path / "made")
    with interrupted(2):
        train(config, half := tmp_path / "half")
    if without_entry:
        older(made), older(half)
    split = config["semi_cfg"]["split"]
    for change, count in (({"fold": 1}, 2), ({"ratio": 0.5}, 4)):
        other = changed(config, split=split | change)
        assert set(split_of(other).labeled) != set(split_of(config).labeled)
        message = rf"labeled videos: 2 videos .* of ratio 0.25, fold 0 of .*, expected {count} videos .* of ratio"
        with pytest.raises(ValueError, match=message + ".*burn-in of the same fold"):
            from_burn_in(other, tmp_path / "other", made)
        with pytest.raises(ValueError, match=message + ".*begin a new run"):
            train(other, half, resume=half)
    from_burn_in(config, tmp_path / "same", made)
    train(config, half, resume=half)


def test_a_split_file_with_the_same_labels_may_take_over_a_burn_in_but_no_run(config_of, tmp_path):
    """Another file, in which the fold has the same labeled videos, but fewer unlabeled ones."""
    config = config_of(labeled(3), FROZEN)
    made = train(config, tmp_path / "made")
    content = json.loads((tmp_path / "semi_split.json").read_text())
    annotations = read_annotations(config["dataset"]["json_file"])
    kept = content["orders"][0][:7]
    fewer = make_splits(annotations, ["training"], kind="uniform", ratios=[1.0])
    fewer |= {"videos": kept, "orders": [kept]}
    write_splits(tmp_path / "fewer.json", fewer | {"hash": digest(fewer)})
    other = changed(config, split={"file": str(tmp_path / "fewer.json"), "ratio": 2 / 7, "fold": 0})
    assert split_of(other).labeled == split_of(config).labeled
    from_burn_in(other, tmp_path / "other", made)
    with pytest.raises(ValueError, match=r"unlabeled videos: 6 videos .* expected 5 videos"):
        train(other, made, resume=made)


def test_a_burn_in_of_another_method_is_taken_and_a_run_of_another_method_is_not(config_of, tmp_path, interrupted):
    config = config_of(labeled(3), FROZEN, method="labeled_only")
    with interrupted(5):
        train(config, made := tmp_path / "made")
    from_burn_in(changed(config, method="nt"), tmp_path / "nt", made)
    with pytest.raises(ValueError, match="method: labeled_only, expected nt"):
        train(changed(config, method="nt"), made, resume=made)


CONTINUED = FROZEN | {"schedule": "continued", "iterations": 4}


@pytest.mark.parametrize(
    ("made_with", "run_with", "message"),
    [
        ([labeled(8), FROZEN], [labeled(4), labeled(4), CONTINUED], "stage 1: iterations: 8, expected 4"),
        ([labeled(4), labeled(2), FROZEN], [labeled(6), CONTINUED], "stage 1: iterations: 4, expected 6"),
        ([labeled(4), CONTINUED], [labeled(4), CONTINUED | {"iterations": 6}], r"schedule: .0, 8., expected .0, 10."),
        ([labeled(4), FROZEN], [labeled(4), CONTINUED], r"schedule: .0, 4., expected .0, 8."),
        ([labeled(4), FROZEN], [labeled(4, opt={"learning_rate": 0.5}), FROZEN], r"stage 1: opt: .* expected .*0\.5"),
        ([labeled(2), labeled(2), FROZEN], [labeled(2), labeled(2, student="fresh"), FROZEN],
         "stage 2: student: warm, expected fresh"),
        ([labeled(8), FROZEN], [labeled(3), FROZEN], "after 8 iterations, but the burn-in of this run has 3"),
    ],
)  # fmt: skip
def test_a_burn_in_of_other_stages_is_refused(config_of, tmp_path, made_with, run_with, message):
    made = train(config_of(*made_with), tmp_path / "made")
    with pytest.raises(ValueError, match=message):
        from_burn_in(config_of(*run_with), tmp_path / "run", made)


def test_a_burn_in_of_the_same_stages_goes_on_with_their_rates(config_of, tmp_path):
    """What comes after it may differ, unless it continues the schedule."""
    stages = [labeled(4), labeled(4), CONTINUED]
    whole = train(config_of(*stages), tmp_path / "whole")
    shared = from_burn_in(config_of(*stages), tmp_path / "shared", whole)
    assert rates(shared) == rates(whole)[8:]
    made = train(config_of(labeled(4), FROZEN), tmp_path / "made")
    other = from_burn_in(config_of(labeled(4), FROZEN | {"repeat": 2, "labels": "stored"}), tmp_path / "other", made)
    assert len(rates(other)) == 6


@pytest.mark.parametrize("arch", [None, "SPOT"])
def test_to_resume_the_stages_that_have_begun_must_be_the_same(config_of, tmp_path, interrupted, arch):
    first = [{"learn": "pretext", "iterations": 2}] if arch else []
    config = config_of(*first, labeled(3), FROZEN, FROZEN, arch=arch)
    at = 4 + 2 * bool(arch)
    with interrupted(at):
        train(config, half := tmp_path / "half")
    stages = config["semi_cfg"]["stages"]
    number = len(first) + 2
    for change, message in (({"iterations": 5}, "iterations: 3, expected 5"), ({"teacher": "online"}, "teacher: ")):
        other = [*stages[:-2], stages[-2] | change, stages[-1]]
        with pytest.raises(ValueError, match=f"stage {number}: {message}"):
            train(changed(config, stages=other), half, resume=half)
    train(changed(config, stages=[*stages[:-1], stages[-1] | {"iterations": 1}]), half, resume=half)
    assert len(rates(half)) == 2 * bool(arch) + 3 + 3 + 1


def test_a_run_that_is_shorter_than_its_checkpoint_says_so(make_semi, tmp_path):
    done = train(load_config(make_semi(burn_in=4, iterations=4)), tmp_path / "run")
    with pytest.raises(ValueError, match=r"after 8 iterations, but this run has 6"):
        train(load_config(make_semi(burn_in=4, iterations=2)), done, resume=done)
    before = (done / "metrics.jsonl").read_text()
    train(load_config(make_semi(burn_in=4, iterations=4)), done, resume=done)  # a finished run ends at once
    assert (done / "metrics.jsonl").read_text() == before


def test_a_run_without_a_burn_in(make_semi, tmp_path):
    config = load_config(make_semi(burn_in=0, iterations=3))
    made = train(config, tmp_path / "made")
    with pytest.raises(ValueError, match="after 3 iterations, but the burn-in of this run has 0"):
        train(changed(config, burn_in_checkpoint=str(made / "last.pth.tar")), tmp_path / "run")
    state = load_checkpoint(made / "last.pth.tar")
    state |= {"iteration": 0, "made_with": state["made_with"] | {"stages": []}, "frozen_teacher": None}
    torch.save(state, tmp_path / "zero.pth.tar")
    assert len(rates(train(changed(config, burn_in_checkpoint=str(tmp_path / "zero.pth.tar")), tmp_path / "zero"))) == 3


def test_no_stage_outside_of_the_run(config_of):
    stages = set_up(config_of(labeled(3), FROZEN)).stages
    assert [stages.at(i).number for i in range(6)] == [1, 1, 1, 2, 2, 2]
    for iteration in (-1, 6):
        with pytest.raises(ValueError, match=rf"iteration {iteration}: in no stage .* 6 iterations"):
            stages.at(iteration)


def test_an_older_checkpoint_alone_gives_a_warning(config_of, tmp_path, caplog):
    config = config_of(labeled(3), FROZEN)
    made = train(config, tmp_path / "made")
    older(made)
    with caplog.at_level(logging.WARNING):
        from_burn_in(config, tmp_path / "with", made)
        assert "does not say which videos were labeled" not in caplog.text
        (made / "config.yaml").unlink()
        from_burn_in(config, tmp_path / "without", made)
    assert "does not say which videos were labeled" in caplog.text


def test_a_stage_that_lacks_later_keys_is_compared_by_their_defaults(config_of, tmp_path):
    config = config_of(labeled(3), FROZEN)
    made = train(config, tmp_path / "made")
    state = load_checkpoint(made / "burn_in.pth.tar")
    del state["made_with"]["stages"][0]["options"]["labels"]
    torch.save(state, made / "burn_in.pth.tar")
    from_burn_in(config, tmp_path / "run", made)

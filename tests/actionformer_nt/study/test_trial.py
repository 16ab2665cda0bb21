"""What the trial's tables say beside means: Holm's correction, groups of test videos, and the paper's observations."""

import json
import math
from pathlib import Path

import pytest
import yaml

from actionformer_nt.commands.main import main
from actionformer_nt.study import plan as study
from actionformer_nt.study import table as study_table
from actionformer_nt.study.observations import KEYS, observations
from actionformer_nt.study.statistics import holm, power, sign_flip_p

ROOT = Path(__file__).parents[3]
GAINS = {"nt": [2.0, 1.0, 3.0, 2.5, 1.5, 0.5], "soft": [1.0, -2.0, 0.5, 0.0, 1.0, -1.0], "oracle_class": [9.0] * 6}


@pytest.fixture
def given_scores(make_data, tmp_path):
    """A study of six folds with given results; `content` adds to the result of a run."""

    def make(content=lambda run: {}, **changes):
        path = make_data(train_cfg={"ema_ramp": True}, plugins=["actionformer_nt"], semi_cfg={
            "split": {"file": str(tmp_path / "split.json"), "ratio": 0.5}, "method": "nt", "burn_in": 1,
            "iterations": 1,
        })  # fmt: skip
        file = {
            "base": str(path), "output": str(tmp_path / "out"), "methods": ["target", *GAINS], "ratios": [0.5],
            "folds": list(range(6)),
        }  # fmt: skip
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(file | changes))
        plan = study.load_study(tmp_path / "study.yaml")
        (tmp_path / "out" / "results").mkdir(parents=True, exist_ok=True)
        for run in plan.runs():
            gain = GAINS.get(run.method, [0.0] * 6)[run.fold]
            result = {"student": {"average_mAP": 0.5 + gain / 100}} | content(run)
            plan.result_file(run).write_text(json.dumps(result))
        return plan

    return make


def rows_of(plan):
    study_table.write_table(plan)
    return {row["method"]: row for row in json.loads((plan.output / "study.json").read_text())["rows"]}


def test_p_values_are_corrected_over_the_methods_without_the_oracle(given_scores):
    plan = given_scores()
    rows = rows_of(plan)
    p = {method: sign_flip_p(GAINS[method]) for method in ("nt", "soft")}
    assert p["nt"] == 2 / 64
    for method, adjusted in holm(p).items():
        assert rows[method]["difference"]["p"] == pytest.approx(p[method])
        assert rows[method]["difference"]["holm_p"] == pytest.approx(adjusted)
    assert rows["oracle_class"]["difference"]["p"] == 2 / 64 and "holm_p" not in rows["oracle_class"]["difference"]
    text = study_table.write_table(plan)
    (line,) = (line for line in text.splitlines() if "| nt |" in line)
    assert line.endswith("| 0.031 | 0.062 |") and "sign-flip" in text and "over the means of" not in text


def test_groups_of_folds_with_the_same_test_videos(given_scores):
    plan = given_scores(lambda run: {"tested": {"videos": 3, "sha256": f"group{run.fold % 3}"}}, min_pairs=2)
    rows = rows_of(plan)
    # folds 0 and 3: 2.25, folds 1 and 4: 1.25, folds 2 and 5: 1.75; t quantile of 2 degrees of freedom 4.303
    group, half = rows["nt"]["by_group"], 4.303 * 0.5 / math.sqrt(3)
    assert (group["pairs"], group["mean"], group["std"]) == pytest.approx((3, 1.75, 0.5))
    assert group["interval"] == pytest.approx((1.75 - half, 1.75 + half), abs=1e-3)
    assert "| 0.5 | nt | +1.75 [+0.51, +2.99] | 3 | 0.50 |" in study_table.write_table(plan)
    same = given_scores(lambda run: {"tested": {"videos": 3, "sha256": "one"}})
    assert "by_group" not in rows_of(same)["nt"]


def test_the_papers_observations(given_scores, capsys, tmp_path):
    def content(run):
        if run.method == "soft":
            return {"last_metrics": {"iteration": 1}}
        right = 0.5 + 0.1 * (run.fold == 0)
        values = {
            "hidden/target_accuracy": right,
            "hidden/truth_among_negatives": (1 - right) / 5,
            "hidden/rank_2": 0.25,
        }
        return {"last_metrics": values | ({"hidden/rank_6_up": 0.125} if run.fold else {})}

    text = observations(given_scores(content))
    (nt,) = (line for line in text.splitlines() if line.startswith("| 0.5 | nt |"))
    assert nt == "| 0.5 | nt | 6 | 51.7 ± 4.1 | 20.0 ± 0.0 | 25.0 ± 0.0 | 12.5 ± 0.0 |"
    assert "| rank 2 | rank 6 and up |" in text and "labeled_only" not in text
    assert (
        "`soft` at ratio 0.5: no curve `hidden/*` in the last record of 6 runs; they need semi_cfg.log_hidden" in text
    )
    assert "`nt` at ratio 0.5: not recorded: hidden/truth_among_positives_when_wrong (6 of 6 runs)" in text
    assert "hidden/rank_6_up (1 of 6 runs)" in text
    assert main(["-q", "study", str(tmp_path / "study.yaml"), "--table-only", "--observations"]) == 0
    assert nt in capsys.readouterr().out


def test_runs_without_a_wrong_target_are_not_missing(given_scores):
    def content(run):
        right = 1.0 if run.fold == 0 else 0.75
        values = {f"hidden/{key}": 0.0 for key in KEYS} | {"hidden/target_accuracy": right}
        if right == 1.0:
            del values["hidden/truth_among_positives_when_wrong"]
        return {"last_metrics": values | {"hidden/truth_among_negatives": (1 - right) / 2}}

    text = observations(given_scores(content))
    (nt,) = (line for line in text.splitlines() if line.startswith("| 0.5 | nt |"))
    assert nt.split(" | ")[4:6] == ["0.0 ± 0.0", "50.0 ± 0.0"]  # of the five folds with a wrong target
    assert "not recorded" not in text


def test_no_runs_no_observations(given_scores):
    plan = given_scores()
    for run in plan.runs():
        if run.method != "labeled_only":
            plan.result_file(run).unlink()
    assert "No finished run" in observations(plan)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/study").glob("*trial_*.yaml")), ids=lambda path: path.stem)
def test_committed_plans_have_the_draws_of_their_split(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = study.load_study(path)
    split = json.loads(Path(plan.raw["semi_cfg"]["split"]["file"]).read_text())
    assert "trial" in plan.raw["semi_cfg"]["split"]["file"] and set(plan.file.ratios) <= set(split["ratios"])
    assert set(plan.file.folds) <= set(range(len(split["orders"])))
    assert len(split["label_ids"]) == plan.raw["dataset"]["num_classes"]
    assert Path(plan.raw["dataset"]["json_file"]).name == split["annotations"]


def test_the_plan_states_the_power_that_the_function_gives():
    page = (ROOT / "docs/results/trial.md").read_text(encoding="utf-8")
    header, _, *rows = page.split("<!-- power -->")[1].split("<!-- end -->")[0].strip().splitlines()
    deviations = [float(cell.split()[1]) for cell in header.strip("| ").split(" | ")[1:]]
    assert len(deviations) == 7 and len(rows) == 3
    for row in rows:
        draws, *stated = row.strip("| ").split(" | ")
        found = [power(1.0, std=std, pairs=int(draws)) for std in deviations]
        assert [float(cell) for cell in stated] == pytest.approx(found, abs=0.0051)


def test_a_parameter_s_values_are_compared_with_its_reference(given_scores):
    names = {"name": "semi_cfg.lam", "values": [0.5, 0.75, 0.85], "reference": 0.85}
    plan = given_scores(methods=["nt"], baseline="nt", parameter=names)
    for run in plan.runs():
        if run.method == "nt":
            gain = {0.5: -1.0 - run.fold, 0.75: run.fold - 2.0, 0.85: 0.0}[run.value]
            plan.result_file(run).write_text(json.dumps({"student": {"average_mAP": 0.5 + gain / 100}}))
    study_table.write_table(plan)
    rows = {row["value"]: row for row in json.loads((plan.output / "study.json").read_text())["rows"]}
    assert "difference" not in rows[0.85] and rows[0.5]["difference"]["mean"] == pytest.approx(-3.5)
    p = {value: sign_flip_p([a + b * fold for fold in range(6)]) for value, a, b in ((0.5, -1, -1), (0.75, -2, 1))}
    for value, adjusted in holm(p).items():
        assert rows[value]["difference"]["holm_p"] == pytest.approx(adjusted)

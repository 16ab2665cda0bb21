"""Study files: grids, what they refuse, tables."""

import json
import re
from pathlib import Path

import pytest
import yaml

from actionformer_nt.commands.main import main
from actionformer_nt.study import plan as study
from actionformer_nt.study import runner
from actionformer_nt.study import table as study_table

CONFIGS = Path(__file__).parents[3] / "configs"


def test_grid_and_parameter(study_file):
    path = study_file(parameter={"name": "semi_cfg.lam", "values": [0.5, 0.75]}, seeds=[0, 1])
    plan = study.load_study(path, overrides=["opt.learning_rate=1e-4"])
    runs = plan.runs()
    assert len(runs) == 4 + 4 * 2 * 2 and len({run.name for run in runs}) == len(runs)
    raw = plan.config(runs[-1])
    assert raw["semi_cfg"]["lam"] == 0.75 and raw["init_rand_seed"] == 1 and raw["semi_cfg"]["split"]["fold"] == 1
    assert float(raw["opt"]["learning_rate"]) == 1e-4


def test_table_of_given_scores(study_file, tmp_path):
    plan = study.load_study(study_file(folds=[0, 1, 2, 3, 4]))
    (tmp_path / "out" / "results").mkdir(parents=True)
    gains = [2.0, 1.0, 3.0, 2.0, 2.0]
    for run in plan.runs():
        score = 0.4 + 0.05 * run.fold + (0.01 * gains[run.fold] if run.method == "nt" else 0)
        content = {"student": {"average_mAP": score}, "config_hash": study.digest(plan.config(run))}
        plan.result_file(run).write_text(json.dumps(content))
    text = study_table.write_table(plan)
    assert "| 0.5 | target | 5 | 50.00 ± 7.91 |  |" in text and "| 0.5 | nt | 5 | 52.00 ±" in text
    # sd sqrt(.5); quantile of t with 4 degrees of freedom, from a printed table, 2.776: 2.776 * sd / sqrt(5) = .878
    assert "+2.00 [+1.12, +2.88] | 5 | 0.71 | 1.19 |" in text
    assert "95 % t interval" in text and "5 % finds with 80 % power" in text
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    (found,) = (row["difference"] for row in content["rows"] if row["method"] == "nt")
    assert found["pairs"] == 5 and found["std"] == pytest.approx(0.5**0.5)
    assert found["interval"] == pytest.approx([1.122, 2.878], abs=1e-3)
    assert content["interval"] == "95 % t interval" and "80 % power" in content["detectable_effect"]


def test_an_interval_needs_min_pairs_and_two(study_file, tmp_path):
    (tmp_path / "out" / "results").mkdir(parents=True)
    for folds, min_pairs, interval, spread in (
        ([0, 1, 2], 4, False, True), ([0, 1, 2], 3, True, True), ([0, 1], 1, True, True), ([0], 1, False, False),
    ):  # fmt: skip
        plan = study.load_study(study_file(folds=folds, min_pairs=min_pairs, methods=["target", "nt"]))
        for run in plan.runs():
            score = 0.5 + (0.01 * (1 + run.fold) if run.method == "nt" else 0)
            plan.result_file(run).write_text(json.dumps({"student": {"average_mAP": score}}))
        text = study_table.write_table(plan)
        (line,) = (line for line in text.splitlines() if "| nt |" in line)
        difference, pairs, sd, detectable, p, adjusted = (cell.strip(" |") for cell in line.split(" | ")[-6:])
        assert ("[" in difference) == interval and int(pairs) == len(folds), line
        assert bool(sd) == bool(detectable) == spread and bool(p) == bool(adjusted) == (len(folds) >= min_pairs), line
        assert f"from {max(min_pairs, 2)} pairs on" in text


def test_a_study_of_one_method_compares_nothing(study_file):
    plan = study.load_study(study_file(methods=["labeled_only"]))
    assert {run.method for run in plan.runs()} == {"labeled_only"}


def test_decoding_has_labels_only_of_its_own(study_file):
    values = {"name": "test_cfg.min_score", "values": [0.001, 0.5]}
    runs = study.load_study(study_file(parameter=values, folds=[0], methods=["target"])).runs()
    assert sorted((r.method, r.value) for r in runs if r.method == "labeled_only") == [
        ("labeled_only", 0.001),
        ("labeled_only", 0.5),
    ]


def test_mistakes(study_file, capsys):
    for changes, word in (
        ({"methods": ["ntt"]}, "ntt"), ({"method": "nt"}, "method"), ({"report": "both"}, "report"),
        ({"base": "none.yaml"}, "none.yaml"), ({"set": {"opt.epoch": 3}}, "opt.epoch"),
        ({"methods": ["target", "oracle_class"]}, "--diagnostic"),
        ({"set": {"semi_cfg.method": "nt"}}, "the study itself sets it"),
        ({"baseline": "soft"}, "baseline: soft: expected one of methods"),
        ({"folds": [0, 0]}, "folds: [0, 0]: expected each one once"),
        ({"own_burn_in": ["soft"]}, "own_burn_in: ['soft']: expected methods of the study"),
        ({"own_burn_in": ["labeled_only"]}, "own_burn_in: ['labeled_only']"),
        ({"parameter": {"name": "semi_cfg.pseudo.ignore_from", "values": [None, 0.05]}}, "values: null"),
        ({"parameter": {"name": "semi_cfg.lam", "values": [0.5], "reference": 0.85}}, "reference: 0.85: expected one"),
        (
            {"parameter": {"name": "semi_cfg.pseudo", "values": [{}]},
             "per_method": {"nt": {"semi_cfg.pseudo.ignore_from": 0.01}}},
            "'semi_cfg.pseudo.ignore_from' cannot be overridden",
        ),
    ):  # fmt: skip
        assert main(["study", str(study_file(**changes))]) == 2
        assert word in capsys.readouterr().err
    assert main(["study", str(study_file()), "--set", "opt"]) == 2


def test_a_table_says_that_scores_are_external(study_file):
    fused = {"test_cfg.ext_score_file": "scores.json", "semi_cfg.allow_external_scores": True}
    for given, said in (({}, False), (fused, True)):
        text = study_table.write_table(study.load_study(study_file(set=given)))
        assert ("With external scores: scores.json." in text) == said


def test_a_parameter_of_the_burn_in_has_a_burn_in_for_each_value(study_file):
    """One of self-training alone shares it; one that changes the burn-in, its schedule included, does not."""
    for name, values, shared in (
        ("semi_cfg.lam", [0.5, 0.9], True), ("semi_cfg.pseudo.threshold", [0.1, 0.2], True),
        ("opt.learning_rate", [1e-3, 1e-4], False), ("semi_cfg.iterations", [1, 2], False),
        ("dataset.crop_ratio", [[0.5, 1.0], [0.9, 1.0]], False),
    ):  # fmt: skip
        plan = study.load_study(study_file(folds=[0], parameter={"name": name, "values": values}))
        runs = plan.runs()
        makers = [run for run in runs if run.method == "labeled_only"]
        assert len(makers) == (1 if shared else 2), name
        for run in runs:
            own = plan.config(run)
            burn_in = plan.config(plan.maker(run))
            if not shared:
                *sections, last = name.split(".")
                for section in sections:
                    own, burn_in = own[section], burn_in[section]
                assert own[last] == burn_in[last], run
        assert len({plan.burn_in(run) for run in runs}) == len(makers), name


def test_a_method_may_have_keys_of_its_own(study_file):
    path = study_file(methods=["target", "nt"], per_method={"nt": {"semi_cfg.alpha": 0.5}})
    plan = study.load_study(path)
    alpha = {run.method: plan.config(run)["semi_cfg"].get("alpha") for run in plan.runs()}
    assert alpha == {"labeled_only": None, "target": None, "nt": 0.5}
    with pytest.raises(ValueError, match=r"per_method: .'soft'. are not among the methods"):
        study.load_study(study_file(methods=["target"], per_method={"soft": {"semi_cfg.alpha": 0.5}}))
    with pytest.raises(ValueError, match=r"'semi_cfg\.method' cannot be overridden"):
        study.load_study(study_file(methods=["target"], per_method={"target": {"semi_cfg.method": "nt"}}))


def test_settings_of_a_method_are_those_of_its_runs(study_file):
    """Given for all runs, or varied, they are left out where another method runs."""
    name, methods = "semi_cfg.method_options.fixmatch.threshold", ["target", "fixmatch", "nt+fixmatch"]
    for changes in ({"set": {name: 0.6}}, {"parameter": {"name": name, "values": [0.6]}}):
        plan = study.load_study(study_file(methods=methods, **changes))
        found = {run.method: plan.config(run)["semi_cfg"].get("method_options", {}) for run in plan.runs()}
        given = {"fixmatch": {"threshold": 0.6}}
        assert found == {"labeled_only": {}, "target": {}, "fixmatch": given, "nt+fixmatch": given}
    with pytest.raises(ValueError, match="method_options: soft: without effect"):
        study.load_study(study_file(methods=methods, set={"semi_cfg.method_options.soft.a": 1}))


def test_methods_that_cannot_run_are_refused_before_any_run(study_file, tmp_path):
    for method, message in (
        ("nt+soft", "nt and soft both say"), ("dense_teacher", "partition: segments: method dense_teacher needs dense"),
        ("sstap", "does not know the modules of method sstap"),
    ):  # fmt: skip
        plan = study.load_study(study_file(methods=["target", method]))
        with pytest.raises(ValueError, match=rf"run .*{re.escape(method)}.*{message}"):
            runner.run_missing(plan, progress=False)
    assert not (tmp_path / "out" / "runs").exists()


LABELED, FROZEN = {"learn": "labeled", "iterations": 2}, {"learn": "pseudo", "iterations": 1, "teacher": "frozen"}
STORED = FROZEN | {"labels": "stored", "repeat": 2}


@pytest.fixture
def staged_study(study_file, tmp_path):
    """A study whose base has the given stages."""

    def write(*stages, **changes):
        base = yaml.safe_load(study_file().read_text())["base"]
        raw = yaml.safe_load(Path(base).read_text())
        raw["semi_cfg"] |= {"stages": list(stages), "burn_in": 0, "iterations": 0}
        (tmp_path / "staged.yaml").write_text(yaml.safe_dump(raw))
        return study_file(base=str(tmp_path / "staged.yaml"), folds=[0], **changes)

    return write


def test_values_that_are_lists_have_short_names(staged_study, tmp_path, capsys):
    values = [[LABELED, FROZEN], [LABELED, STORED]]
    parameter = {"name": "semi_cfg.stages", "values": values, "reference": values[0]}
    path = staged_study(LABELED, FROZEN, methods=["target"], parameter=parameter)
    plan = study.load_study(path)
    names = [run.name for run in plan.runs()]
    assert len(set(names)) == 4 and all(len(name) < 60 and re.fullmatch(r"[\w.]+", name) for name in names)
    assert names == [run.name for run in study.load_study(path).runs()]
    assert plan.config(plan.runs()[-1])["semi_cfg"]["stages"] == values[1]
    assert main(["-q", "study", str(path)]) == 0
    table = capsys.readouterr().out
    for run in plan.runs():
        result = json.loads(plan.result_file(run).read_text())
        label = run.name.rpartition("_p")[2]
        assert result["run"]["value"] == run.value and result["run"]["label"] == label
        assert f"`{label}`: `{json.dumps(run.value)}`" in table and f"| target | {label} | 1 |" in table
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    assert all(json.loads(value) in values for value in content["values"].values()) and len(content["values"]) == 2
    differences = {row["value"]: row.get("difference") for row in content["rows"] if row["method"] == "target"}
    assert [difference is None for difference in differences.values()] == [True, False]  # to the reference


def test_labels_of_values():
    for value in (0.5, 3, True, "nms", "a.b-c"):
        assert study.label_of(value) is value
    odd = [[], [0.5], {"a": 1}, "a/b", "x" * 41]
    assert len({study.label_of(value) for value in odd}) == len(odd)
    assert study.label_of({"a": 1, "b": 2}) == study.label_of({"b": 2, "a": 1}) != study.label_of({"b": 1, "a": 2})


def test_a_parameter_may_be_a_key_of_a_stage(staged_study):
    parameter = {"name": "semi_cfg.stages.1.iterations", "values": [3, 4]}
    plan = study.load_study(staged_study(LABELED, FROZEN, methods=["target"], parameter=parameter))
    found = {run.name: plan.config(run)["semi_cfg"]["stages"][1]["iterations"] for run in plan.runs()}
    assert list(found.values()) == [3, 4, 3, 4]
    parameter["name"] = "semi_cfg.stages.2.iterations"
    with pytest.raises(ValueError, match=r"stages\.2\.iterations': '2': no entry of the list there; expected 0 to 1"):
        study.load_study(staged_study(LABELED, FROZEN, methods=["target"], parameter=parameter))


def test_keys_of_a_method_do_not_change_the_burn_in(study_file, staged_study):
    """All methods start from that of `labeled_only`."""
    for keys in ({"opt.learning_rate": 1e-4}, {"semi_cfg.iterations": 3}, {"dataset.crop_ratio": None}):
        with pytest.raises(ValueError, match=rf"per_method: nt: {next(iter(keys))}: may change the burn-in"):
            study.load_study(study_file(per_method={"nt": keys}))
    spot = {"base": str(CONFIGS / "semi" / "spot_thumos_tsn_10.yaml"), "ratios": [0.1]}
    study.load_study(study_file(**spot, per_method={"nt": {"model.loss.class_form": "hybrid"}}))
    with pytest.raises(ValueError, match=r"per_method: labeled_only: model\.loss\.class_form: may change"):
        study.load_study(study_file(**spot, per_method={"labeled_only": {"model.loss.class_form": "hybrid"}}))
    for stages in ([LABELED, STORED], [LABELED, FROZEN, FROZEN]):
        study.load_study(staged_study(LABELED, FROZEN, per_method={"nt": {"semi_cfg.stages": stages}}))
    study.load_study(staged_study(LABELED, FROZEN, per_method={"nt": {"semi_cfg.stages.1.teacher": "online"}}))
    for stages in (
        [LABELED | {"iterations": 3}, FROZEN], [LABELED | {"opt": {"learning_rate": 0.5}}, FROZEN], [LABELED, LABELED],
        [LABELED, FROZEN | {"schedule": "continued"}],
    ):  # fmt: skip
        for method in ("nt", "labeled_only"):
            with pytest.raises(ValueError, match=r"semi_cfg\.stages: the stages before self-training"):
                study.load_study(staged_study(LABELED, FROZEN, per_method={method: {"semi_cfg.stages": stages}}))


def test_a_method_with_a_burn_in_of_its_own_may_have_another_detector(study_file):
    keys = {"model.quality": True, "semi_cfg.burn_in": 2}
    with pytest.raises(
        ValueError, match=r"apl: model\.quality, semi_cfg\.burn_in: may change the burn-in.*own_burn_in"
    ):
        study.load_study(study_file(methods=["target", "apl"], per_method={"apl": keys}))
    path = study_file(methods=["target", "apl"], per_method={"apl": keys}, own_burn_in=["apl"])
    plan = study.load_study(path)
    runs = {run.method: run for run in plan.runs() if run.fold == 0}
    own, shared = (plan.config(runs[name]) for name in ("apl", "target"))
    assert own["model"]["quality"] and own["semi_cfg"]["burn_in"] == 2 and "burn_in_checkpoint" not in own["semi_cfg"]
    assert "quality" not in shared.get("model", {}) and "burn_in_checkpoint" in shared["semi_cfg"]
    assert not plan.waits(runs["apl"]) and plan.waits(runs["target"])
    said = '`apl` has a burn-in of its own: {"model.quality": true, "semi_cfg.burn_in": 2}.'
    assert said in study_table.write_table(plan)
    assert "burn-in of its own" not in study_table.write_table(study.load_study(study_file()))
    for key in ("dataset.json_file", "val_split", "semi_cfg.split.file"):
        with pytest.raises(ValueError, match=rf"apl: {key}: must be the same for all"):
            keys = {"apl": {key: ["test"] if key == "val_split" else "other.json"}}
            study.load_study(study_file(methods=["target", "apl"], per_method=keys, own_burn_in=["apl"]))


def test_watch_and_views_of_the_teacher_share_a_burn_in(study_file):
    for name, values in (
        ("semi_cfg.teacher_views", [[], [{"shift": 1}]]), ("semi_cfg.watch.videos", [0, 5]),
        ("semi_cfg.on_collapse", ["warn", "stop"]),
    ):  # fmt: skip
        plan = study.load_study(study_file(parameter={"name": name, "values": values}))
        assert plan.shares_burn_in and len({plan.burn_in(run) for run in plan.runs()}) == 2

"""What the report takes from run folders, against the files and slow versions."""

import json
import re
import shutil

import numpy as np
import pytest
import yaml

from actionformer_nt.commands.main import main
from actionformer_nt.config import semi_section
from actionformer_nt.report import gather
from actionformer_nt.report.runs import MAX_RECORDS, about, read_curves, run_names
from libs.core import load_config
from libs.evaluation.average_precision import ground_truth


def data_of(page):
    return json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])


def test_numbers_are_those_of_the_folder(write_run, tmp_path):
    found, truth, result = write_run(tmp_path / "run")
    (run,) = gather([tmp_path / "run"])["runs"]
    (evaluation,) = run["evaluations"]
    assert run["name"] == "run" and evaluation["name"] == "averaged weights"
    assert evaluation["metrics"]["average_mAP"] == pytest.approx(result.average_mAP)
    assert evaluation["diagnosis"]["mAP"] == pytest.approx(result.mAP.tolist())
    assert evaluation["diagnosis"]["detections"] == len(found.label)
    (timeline,) = run["timelines"]
    assert timeline["rows"] == ["averaged weights"] and timeline["total"] == len(truth)
    for video, entry in zip(truth, timeline["videos"], strict=True):
        assert entry["id"] == video.id and entry["duration"] == video.duration
        events = np.array(entry["truth"]).reshape(-1, 3)
        np.testing.assert_allclose(events, np.array(video.events), atol=0.0051)
        rows = found.video_id == video.id
        bars = np.array(entry["bars"][0]).reshape(-1, 4)
        columns = (found.t_start, found.t_end, found.label, found.score)
        np.testing.assert_allclose(bars, np.stack([c[rows] for c in columns], axis=1), atol=0.0051)
    assert ["seed", "7"] in run["about"] and run["moments"] == [] and run["embeddings"] is None


def test_precision_recall_against_loops(write_run, tmp_path):
    found, truth, result = write_run(tmp_path / "run", videos=6, detections=10)
    curves = gather([tmp_path / "run"])["runs"][0]["evaluations"][0]["curves"]
    events = ground_truth(truth)
    for t, threshold in enumerate([0.3, 0.5, 0.7]):
        for c, label in enumerate(result.label):
            rows = np.flatnonzero(found.label == label)
            rows = rows[np.argsort(-found.score[rows])]
            taken, precision, recall = set(), [], []
            for r in rows:
                best = None
                for g in np.flatnonzero((events.label == label) & (events.video_id == found.video_id[r])):
                    inter = min(found.t_end[r], events.t_end[g]) - max(found.t_start[r], events.t_start[g])
                    union = found.t_end[r] - found.t_start[r] + events.t_end[g] - events.t_start[g] - inter
                    if g not in taken and inter / union >= threshold and (best is None or inter / union > best[0]):
                        best = (inter / union, g)
                if best:
                    taken.add(best[1])
                precision.append(len(taken) / (len(precision) + 1))
                recall.append(len(taken) / result.num_gt[c])
            for k in range(41):
                expected = max((p for p, x in zip(precision, recall, strict=True) if x >= k / 40 - 1e-9), default=0)
                assert curves["classes"][t][c][k] == pytest.approx(1000 * expected, abs=0.51)
        np.testing.assert_allclose(curves["mean"][t], np.mean(curves["classes"][t], axis=0), atol=1.01)


def test_a_trained_pair(trained_runs):
    content = gather(trained_runs)
    target, nt = content["runs"]
    assert [e["name"] for e in target["evaluations"]] == ["teacher", "student"]
    assert all(e["diagnosis"] and e["curves"] for run in content["runs"] for e in run["evaluations"])
    assert ["method", "nt"] in nt["about"] and nt["curves"]["key"] == "iteration"
    assert {"space/target", "pseudo/segments", "labeled/final_loss"} <= nt["curves"]["series"].keys()
    assert len(nt["moments"]) == 3 and nt["embeddings"]["foreground"]["points"]
    test, unlabeled = nt["timelines"]
    assert test["subset"] == "test" and test["rows"] == ["teacher", "student"]
    assert unlabeled["subset"] == "unlabeled training" and len(unlabeled["rows"]) == 4 and unlabeled["earlier"] == 2
    assert unlabeled["rows"][0].startswith("teacher's pseudo labels, iteration ") and unlabeled["rows"][-1] == "student"
    assert all(video["truth"] for video in unlabeled["videos"])  # the run has logged them
    assert json.loads(json.dumps(content, allow_nan=False)) is not None


def test_every_class_of_the_run_is_listed(write_run, tmp_path, trained_runs):
    names = {i: f"class{i}" for i in range(3)}
    write_run(tmp_path / "run")
    assert gather([tmp_path / "run"])["runs"][0]["classes"] == names  # those that occur
    (tmp_path / "run/classes.json").write_text(json.dumps({"rare": 9, **{name: i for i, name in names.items()}}))
    assert gather([tmp_path / "run"])["runs"][0]["classes"] == names | {9: "rare"}
    for folder, run in zip(trained_runs, gather(trained_runs)["runs"], strict=True):
        assert run["classes"] == {i: name for name, i in json.loads((folder / "classes.json").read_text()).items()}


def test_a_timeline_names_all_subsets_of_its_ground_truth(write_run, tmp_path):
    write_run(tmp_path / "run", subsets=("validation", "test"))
    (timeline,) = gather([tmp_path / "run"])["runs"][0]["timelines"]
    assert timeline["subset"] == "test, validation" and timeline["total"] == 4


def test_shares_are_percents(trained_runs):
    ratio = yaml.safe_load((trained_runs[0] / "config.yaml").read_text())["semi_cfg"]["split"]["ratio"]
    rows = gather(trained_runs)["runs"][0]["about"]
    assert ["labeled share", f"{round(100 * ratio)} %, fold 0 of split.json"] in rows


def test_iterations_are_those_of_the_stages(make_semi, tmp_path):
    """They are those of the checked section, whether it has stages or lengths."""
    labeled, pseudo = {"learn": "labeled", "iterations": 3}, {"learn": "pseudo", "iterations": 2, "repeat": 2}
    for arch, semi, expected in (
        (None, {"stages": [labeled, pseudo]}, "3 burn-in, 4 self-training in 2 stages"),
        ("SPOT", {"stages": [{"learn": "pretext", "iterations": 5}, labeled, pseudo | {"repeat": 1}]},
         "5 pretext, 3 burn-in, 2 self-training"),
        (None, {"burn_in": 4, "iterations": 6}, "4 burn-in, 6 self-training"),
        ("SPOT", {"pretrain": 1, "burn_in": 4, "iterations": 6}, "1 pretext, 4 burn-in, 6 self-training"),
    ):  # fmt: skip
        config = load_config(make_semi(arch=arch, **({"burn_in": 0, "iterations": 0} | semi)))
        assert ["iterations", expected] in about(config, tmp_path)
        plan = semi_section(config).plan()
        assert sum(map(int, re.findall(r"(\d+) (?:pre|burn|self)", expected))) == sum(
            stage.iterations for stage in plan
        )


def test_external_scores_are_said_wherever_the_numbers_stand(write_run, tmp_path):
    write_run(tmp_path / "run", external="scores.json")
    (run,) = gather([tmp_path / "run"])["runs"]
    assert run["evaluations"][0]["name"] == "averaged weights (external scores)"
    assert run["timelines"][0]["rows"] == ["averaged weights (external scores)"]
    assert ["external scores", "scores.json"] in run["about"]


def test_numbers_of_another_evaluation_are_refused(write_run, tmp_path):
    write_run(tmp_path / "run")
    write_run(tmp_path / "other", seed=1)
    shutil.copy(tmp_path / "other/last_ema_detections.json", tmp_path / "run")
    with pytest.raises(ValueError, match=r"last_ema_metrics\.json: average mAP .* different evaluations"):
        gather([tmp_path / "run"])


def test_a_file_that_is_no_evaluation_is_named(write_run, tmp_path):
    write_run(tmp_path / "run")
    for content in ("[]", '{"tiou": [0.5]}', '{"tiou": 0.5, "average_mAP": 0.1}'):
        (tmp_path / "run/last_ema_metrics.json").write_text(content)
        with pytest.raises(ValueError, match=r"last_ema_metrics\.json: not the metrics of an evaluation"):
            gather([tmp_path / "run"])


def test_what_is_missing_is_left_out(write_run, tmp_path, caplog):
    write_run(tmp_path / "run")
    (tmp_path / "run/ground_truth.json").unlink()
    (tmp_path / "run/metrics.jsonl").unlink()
    (run,) = gather([tmp_path / "run"])["runs"]
    assert "no ground_truth.json" in caplog.text
    assert run["evaluations"][0]["diagnosis"] is None and run["curves"] is None
    assert run["timelines"][0]["videos"][0]["truth"] is None
    for path in (tmp_path / "run").glob("last_*"):
        path.unlink()
    assert gather([tmp_path / "run"])["runs"][0]["evaluations"] == [] and "no evaluation in it" in caplog.text
    with pytest.raises(FileNotFoundError, match="not a run folder"):
        gather([tmp_path])


def test_names_of_runs(tmp_path):
    assert run_names([tmp_path / "a/x", tmp_path / "b/y"]) == ["x", "y"]
    assert run_names([tmp_path / "a/x", tmp_path / "b/x"]) == ["a/x", "b/x"]
    with pytest.raises(ValueError, match="given twice"):
        run_names([tmp_path / "a", tmp_path / "a"])


def test_long_records_are_thinned_and_keep_their_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"iteration": i, "loss": 1 / i}) + "\n" for i in range(1, 1001)) + '{"broken')
    curves = read_curves(path)
    assert len(curves["x"]) <= MAX_RECORDS and curves["x"][-1] == 1000 and curves["series"]["loss"][-1] == 0.001


def test_few_of_many_videos(write_run, tmp_path):
    write_run(tmp_path / "run", videos=9)
    (timeline,) = gather([tmp_path / "run"], videos=3)["runs"][0]["timelines"]
    assert timeline["total"] == 9 and [v["id"] for v in timeline["videos"]] == ["video_000", "video_003", "video_006"]


def test_the_command_writes_one_page(write_run, tmp_path, capsys):
    evil = "</script><b>{}&amp;<!--DATA-->"
    write_run(tmp_path / "run", name=evil)
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "out/r.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out/r.html")
    page = (tmp_path / "out/r.html").read_text()
    assert data_of(page) == json.loads(json.dumps(gather([tmp_path / "run"])))
    assert data_of(page)["runs"][0]["timelines"][0]["names"]["0"] == evil.format(0)
    assert page.count("</script>") == 2 and page.count("<script") == 2
    for foreign in ("http:", "https:", "src=", "@import", "url("):
        assert foreign not in page.replace("http://www.w3.org/2000/svg", "")
    assert main(["report", str(tmp_path)]) == 2


def test_the_watch_is_on_the_page(trained_runs, write_run, tmp_path):
    for folder, run in zip(trained_runs, gather(trained_runs)["runs"], strict=True):
        assert run["watch"] == json.loads((folder / "watch.json").read_text())
        assert run["watch"]["warnings"] == [] and ["watch", "no warning"] in run["about"]
        assert {"watch/coverage", "watch/events_per_minute"} <= run["curves"]["series"].keys()
    warned = shutil.copytree(trained_runs[0], tmp_path / "warned")
    content = json.loads((warned / "watch.json").read_text())
    content["warnings"] = [{"iteration": 8, "quantity": "one_class", "message": "one class fills"}]
    (warned / "watch.json").write_text(json.dumps(content))
    (run,) = gather([warned])["runs"]
    assert ["watch", "1 warning, see Pseudo labels"] in run["about"] and run["watch"]["warnings"][0]["iteration"] == 8
    write_run(tmp_path / "supervised")
    (run,) = gather([tmp_path / "supervised"])["runs"]
    assert run["watch"] is None and not any(name == "watch" for name, _ in run["about"])

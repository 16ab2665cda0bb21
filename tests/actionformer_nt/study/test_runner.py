"""Running a study: what is missing, in which order, on which devices, and what happens when runs end."""

import json
from pathlib import Path

import pytest

from actionformer_nt import run as semi_run
from actionformer_nt.commands.main import main
from actionformer_nt.study import job, runner
from actionformer_nt.study import plan as study

CONFIGS = Path(__file__).parents[3] / "configs"


def test_runs_what_is_missing_and_makes_a_table(study_file, tmp_path, capsys):
    path = study_file(folds=[0])
    assert main(["-q", "study", str(path), "--processes", "2"]) == 0
    results = sorted((tmp_path / "out" / "results").iterdir())
    names = [f"{m}_r0.5_f0_s0.json" for m in ("labeled_only", "nt", "target")]
    assert [p.name for p in results] == names
    times = [p.stat().st_mtime_ns for p in results]
    result = json.loads(results[1].read_text())
    assert result["run"]["method"] == "nt" and 0 <= result["teacher"]["average_mAP"] <= 1 and "commit" in result
    assert result["config"]["semi_cfg"]["burn_in_checkpoint"].endswith("labeled_only_r0.5_f0_s0/burn_in.pth.tar")
    assert main(["-q", "study", str(path)]) == 0
    assert [p.stat().st_mtime_ns for p in results] == times  # nothing ran again
    assert "| 0.5 | nt | 1 |" in capsys.readouterr().out
    changed = study_file(folds=[0], set={"opt.weight_decay": 0.5})
    assert main(["-q", "study", str(changed)]) == 2
    assert "another configuration" in capsys.readouterr().err
    assert main(["-q", "study", str(changed), "--table-only"]) == 0
    assert "3 of 3 runs. **3 of them were made with another configuration" in capsys.readouterr().out


def test_a_method_with_a_quality_head_trains_from_the_beginning(study_file, tmp_path):
    keys = {"model.quality": True, "train_cfg.cls_prior_prob": 0.1}
    path = study_file(methods=["target", "apl"], folds=[0], per_method={"apl": keys}, own_burn_in=["apl"])
    assert main(["-q", "study", str(path)]) == 0
    results = {p.name.split("_r")[0]: json.loads(p.read_text()) for p in (tmp_path / "out" / "results").iterdir()}
    assert results.keys() == {"labeled_only", "target", "apl"}
    assert (tmp_path / "out" / "runs" / "apl_r0.5_f0_s0" / "burn_in.pth.tar").is_file()


def test_a_lost_burn_in_is_made_again(study_file):
    plan = study.load_study(study_file(folds=[0, 1]))
    for run in plan.runs():
        plan.result_file(run).parent.mkdir(parents=True, exist_ok=True)
        plan.result_file(run).write_text(json.dumps({"config_hash": study.digest(plan.config(run))}))
    runs = plan.runs()
    assert runner._runs_to_execute(plan, runs) == []
    (lost,) = (run for run in plan.runs() if run.method == "nt" and run.fold == 1)
    plan.result_file(lost).unlink()
    again = runner._runs_to_execute(plan, runs)
    assert [(run.method, run.fold) for run in again] == [("labeled_only", 1), ("nt", 1)]
    plan.burn_in(lost).parent.mkdir(parents=True)
    plan.burn_in(lost).touch()
    assert runner._runs_to_execute(plan, runs) == [lost]


def test_a_run_that_was_killed_after_its_burn_in_goes_on(study_file, tmp_path, interrupted):
    plan = study.load_study(study_file())
    run = plan.runs()[0]
    folder, result = tmp_path / "run", tmp_path / "result.json"
    described = {"config": plan.config(run), "folder": str(folder), "run": {}, "result": str(result), "hash": "",
                 "diagnostic": False, "own_gpu": False}  # fmt: skip
    with interrupted(1):
        job.run_job(described)
    assert [path.name for path in folder.glob("*.pth.tar")] == ["burn_in.pth.tar"]
    job.run_job(described)
    assert json.loads(result.read_text())["last_metrics"]["iteration"] == 2


def test_some_methods_and_folds_first(study_file, capsys):
    plan = study.load_study(study_file(folds=[0, 1]))

    def runs(methods=None, folds=None):
        chosen = runner._chosen(plan, methods, folds)
        return [(run.method, run.fold) for run in runner._runs_to_execute(plan, chosen)]

    assert runs(["nt"], [1]) == [("labeled_only", 1), ("nt", 1)]  # with the burn-in
    assert runs(["labeled_only"]) == [("labeled_only", 0), ("labeled_only", 1)]
    assert len(runs(folds=[0])) == 3 and len(runs()) == 6
    for option, value in (("--methods", "soft"), ("--folds", "2")):
        assert main(["study", plan.path, option, value]) == 2
        assert f"{option}: [" in capsys.readouterr().err


def test_a_run_starts_when_its_burn_in_is_there(study_file, monkeypatch):
    """Not only when the run that makes the burn-in has ended. Folds that were begun come first."""
    plan = study.load_study(study_file(folds=[0, 1]))
    (begun,) = (run for run in plan.runs() if run.method == "labeled_only" and run.fold == 1)
    plan.burn_in(begun).parent.mkdir(parents=True)
    plan.burn_in(begun).touch()
    started = []

    class Process:
        returncode, polls = None, 0

        def __init__(self, run):
            self.maker = run.method == "labeled_only"

        def poll(self):
            self.polls += 1
            if not self.maker or len(started) == 6:
                self.returncode = 0
            elif self.polls > 20:
                self.returncode = 1  # the others wait for its end
            return self.returncode

    def start(study, run, *_):
        started.append((run.method, run.fold))
        study.burn_in(run).parent.mkdir(parents=True, exist_ok=True)
        study.burn_in(run).touch()
        return Process(run)

    monkeypatch.setattr(runner, "_start", start)
    monkeypatch.setattr(runner, "POLL", 0.001)
    runner.run_missing(plan, processes=3, progress=False)
    names = [("target", 1), ("nt", 1), ("labeled_only", 0)]
    assert started[:3] == names and started[3:] == [("target", 0), ("nt", 0), ("labeled_only", 1)]


def test_failed_runs_are_told_with_their_reason(study_file, tmp_path, capsys):
    path = study_file(folds=[0], set={"dataset.feat_folder": str(tmp_path / "nowhere")})
    assert main(["-q", "study", str(path)]) == 3
    told = capsys.readouterr().err
    assert "1 of 3 runs failed; 2 runs that start from their burn-in were not made" in told
    assert "labeled_only_r0.5_f0_s0.log" in told and "nowhere" in told and "Traceback" not in told


def test_runs_share_cores_and_have_gpus_of_their_own(study_file, monkeypatch):
    monkeypatch.setattr(runner, "available_cores", lambda: 8)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    on_gpus = study.load_study(study_file(set={"devices": ["cuda:1"]}))
    slots = runner.Slots(on_gpus, 4)
    environments = [slots.environment(slot) for slot in slots.free]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["2", "5", "7", "2"]
    assert {e["OMP_NUM_THREADS"] for e in environments} == {e["MKL_NUM_THREADS"] for e in environments} == {"2"}
    assert runner.Slots(on_gpus, 1).environment(0)["CUDA_VISIBLE_DEVICES"] == "2,5,7"  # alone, a run sees all
    on_cpus = runner.Slots(study.load_study(study_file()), 3)
    assert on_cpus.environment(2)["CUDA_VISIBLE_DEVICES"] == "2,5,7" and on_cpus.threads == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert on_cpus.environment(0)["OMP_NUM_THREADS"] == "5"  # what the user has set holds


def test_a_run_with_a_gpu_of_its_own_takes_the_one_that_it_sees(study_file, tmp_path, monkeypatch):
    plan = study.load_study(study_file(set={"devices": ["cuda:3"]}))
    seen = []

    def train(config, *args, **kwargs):
        seen.append(config["devices"])
        raise KeyboardInterrupt

    monkeypatch.setattr(semi_run, "train", train)
    run = plan.runs()[0]
    for own in (True, False):
        described = {"config": plan.config(run), "folder": str(tmp_path / "x"), "diagnostic": False, "own_gpu": own}
        with pytest.raises(KeyboardInterrupt):
            job.run_job(described)
    assert seen == [["cuda:0"], ["cuda:3"]]


def test_a_study_that_cannot_start_is_refused_at_once(study_file, tmp_path, capsys):
    for changes, words in (
        ({"ratios": []}, "ratios"), ({"folds": [0, 9]}, "no fold 9"), ({"ratios": [0.5, 0.9]}, "ratio 0.9 asks for"),
        ({"set": {"dataset.json_file": str(tmp_path / "nowhere.json")}}, "nowhere.json"),
    ):  # fmt: skip
        assert main(["-q", "study", str(study_file(**changes))]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for number in ("0", "-1", "x"):
        with pytest.raises(SystemExit):
            main(["study", str(study_file()), "--processes", number])


def test_a_collapsed_run_is_not_in_the_table(study_file, tmp_path, capsys):
    """However often the study is called, at the end of the run or before it."""
    settings = {"semi_cfg.on_collapse": "stop", "semi_cfg.watch.videos": 1, "semi_cfg.pseudo.threshold": 1.0}
    path = study_file(folds=[0], methods=["labeled_only", "target"], set=settings)
    for _ in range(3):
        assert main(["-q", "study", str(path)]) == 3
        assert "1 of" in (told := capsys.readouterr()).err and "on_collapse is stop" in told.err
    assert [p.name for p in (tmp_path / "out" / "results").iterdir()] == ["labeled_only_r0.5_f0_s0.json"]

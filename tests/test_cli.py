import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from actionformer_nt.commands import COMMANDS, configs
from actionformer_nt.commands.main import build_parser, main
from actionformer_nt.commands.options import parse_tiou
from libs.core import load_config
from libs.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[1]


def test_simulate_train_eval_evaluate(make_data, tmp_path, capsys):
    path = make_data()
    assert main(["-q", "train", str(path), "--output", "x", "-c", "1"]) == 0
    folder = tmp_path / "ckpt" / "tiny_x"
    assert load_checkpoint(folder / "epoch_002.pth.tar")["epoch"] == 2
    assert main(["-q", "eval", str(path), str(folder), "-epoch", "2", "--weights", "raw"]) == 0
    out = capsys.readouterr().out
    detections = folder / "epoch_002_raw_detections.json"
    assert "average mAP" in out and str(detections) in out

    annotations = str(path.parent / "annotations.json")
    arguments = ["evaluate", str(detections), "--annotations", annotations, "--split", "test", "--per-class"]
    assert main([*arguments, "--json", str(tmp_path / "m.json"), "--csv", str(tmp_path / "m.csv")]) == 0
    assert "class1" in capsys.readouterr().out
    again, first = (json.loads(p.read_text()) for p in (tmp_path / "m.json", folder / "epoch_002_raw_metrics.json"))
    assert again["mAP"] == first["mAP"] and again["recall"] == first["recall"]
    assert (tmp_path / "m.csv").read_text().splitlines()[-1].startswith("mean,")

    assert main(["-q", "simulate", str(tmp_path / "toy"), "--num-train", "2", "--num-test", "1", "--jobs", "1"]) == 0
    assert len(list((tmp_path / "toy" / "features").iterdir())) == 3


def test_resume_by_folder_alone(make_data, tmp_path):
    path = make_data(train_cfg={"numbered_checkpoints": "full"})
    assert main(["-q", "train", str(path), "--output", "x", "-c", "2"]) == 0
    (tmp_path / "ckpt" / "tiny_x" / "last.pth.tar").unlink()
    (tmp_path / "ckpt" / "tiny_x" / "epoch_003.pth.tar").unlink()
    assert main(["-q", "train", str(path), "--resume", str(tmp_path / "ckpt" / "tiny_x")]) == 0
    assert [p.name for p in (tmp_path / "ckpt").iterdir()] == ["tiny_x"]
    assert load_checkpoint(tmp_path / "ckpt" / "tiny_x" / "last.pth.tar")["epoch"] == 3


def test_mistakes_are_one_line_and_an_exit_status(make_data, tmp_path, capsys):
    assert main(["train", str(tmp_path / "none.yaml")]) == 2
    assert main(["eval", str(make_data()), str(tmp_path)]) == 2
    assert main(["evaluate", "x.json", "--annotations", "y.json", "--split", "test"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and all(line.startswith("error: ") for line in errors)
    path = make_data()
    np.save(path.parent / "features" / "v1.npy", np.full((64, 8), 3e38, np.float32))
    assert main(["-q", "train", str(path), "--output", "y"]) == 3
    assert "'v1'" in capsys.readouterr().err
    broken = make_data(name="broken", loader={"num_workers": 1})
    np.save(broken.parent / "features" / "v1.npy", np.full((64, 8), np.nan, np.float32))
    assert main(["-q", "train", str(broken), "--output", "z", "-p", "0"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and "v1.npy: video 'v1' holds numbers that are not finite" in error[0]
    with pytest.raises(SystemExit) as stop:
        main(["trian"])
    assert stop.value.code == 2


def test_thresholds():
    assert parse_tiou("0.3:0.7:0.1") == [0.3, 0.4, 0.5, 0.6, 0.7]
    assert parse_tiou("0.5,0.75") == [0.5, 0.75] and parse_tiou("0.3:0.78:0.1")[-1] == 0.7
    for bad in ("", "a", "0:inf:0.1", "0.7:0.3:0.1", "0.1:0.5:0", "0.1:0.5"):
        with pytest.raises(ValueError, match="--tiou"):
            parse_tiou(bad)


def test_help_loads_nothing_heavy():
    code = "import sys, actionformer_nt.commands.main as c; c.build_parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pandas", "pydantic", "yaml", "tqdm"} & set(done.stdout.split())


@pytest.mark.parametrize("name", [name.replace("_", "-") for name in COMMANDS])
def test_every_command_has_a_text_and_an_example_that_parses(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    example = " ".join(capsys.readouterr().out.split()).partition("example: ")[2]
    assert example.startswith(f"actionformer-nt {name} ")
    build_parser().parse_args(example.split()[1:])


def test_overrides_are_checked_by_the_schema(make_data, tmp_path, capsys):
    path = str(make_data())
    assert main(["-q", "train", path, "--output", "x", "--set", "opt.epochs=1", "--set", "opt.warmup_epochs=0"]) == 0
    config = load_config(tmp_path / "ckpt" / "tiny_x" / "config.yaml")
    assert config["opt"]["epochs"] == 1 and config["opt"]["warmup_epochs"] == 0
    for override, words in (
        ("train_cfg.dropath=0.2", ["unknown key 'train_cfg.dropath'", "did you mean 'droppath'"]),
        ("opt.epochs=many", ["opt.epochs", "many"]),
        ("opt.epochs", ["--set 'opt.epochs'", "KEY=VALUE"]),
        ("opt..epochs=1", ["--set 'opt..epochs=1'"]),
        ("opt.epochs=[1", ["--set 'opt.epochs=[1'", "not YAML"]),
    ):
        assert main(["-q", "eval", path, str(tmp_path), "--set", override]) == 2
        error = capsys.readouterr().err
        assert all(word in error for word in words), error


def test_quiet_and_verbose_before_and_after_the_command(make_data, capsys):
    path = str(make_data())
    shown = {}
    for name, arguments in (("q", ["-q"]), ("", []), ("v", ["-v"])):
        for where in ("before", "after"):
            command = ["train", path, "--output", name + where]
            assert main(arguments + command if where == "before" else command + arguments) == 0
            shown[name + where] = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert shown["qbefore"] == shown["qafter"] == ["99"]  # the warning about the average alone
    assert shown["before"] == shown["after"] and shown["after"].count("epoch") == 3
    assert shown["vbefore"] == shown["vafter"] and shown["vafter"].count("epoch") == 6


def test_completion(capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stop:
        main(["--completion", "bash"])
    assert stop.value.code == 0 and "--per-class" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train", "eval", "evaluate"])
def test_tools_are_the_commands(name):
    done = subprocess.run([sys.executable, f"tools/{name}.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "usage" in done.stdout, done.stderr


def test_configs_are_listed_and_copied(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = sorted(f"configs/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.*"))
    assert main(["configs"]) == 0
    assert sorted(capsys.readouterr().out.split()) == expected
    assert main(["configs", "new/project"]) == 0 and f"{len(expected)} files copied" in capsys.readouterr().out
    copies = Path("new/project/configs")
    edited, gone = copies / "semi" / "demo.yaml", copies / "splits" / "hapt.json"
    edited.write_text("mine", encoding="utf-8")
    gone.unlink()
    assert main(["configs", "new/project"]) == 2  # and changes nothing
    error = capsys.readouterr().err
    assert "1 files differ" in error and "semi/demo.yaml" in error and "--overwrite" in error
    assert edited.read_text(encoding="utf-8") == "mine" and not gone.exists()
    assert main(["configs", "new/project", "--overwrite"]) == 0
    assert f"1 files copied, 1 replaced, {len(expected) - 2} were there already" in capsys.readouterr().out
    assert sorted(f"configs/{path.relative_to(copies)}" for path in copies.rglob("*.*")) == expected
    assert edited.read_bytes() == (ROOT / "configs" / "semi" / "demo.yaml").read_bytes()


def test_an_installation_without_configs_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(configs, "__file__", str(tmp_path / "actionformer_nt" / "commands" / "configs.py"))
    assert main(["configs"]) == 2
    assert str(tmp_path / "actionformer_nt" / "configs") in capsys.readouterr().err


@pytest.fixture
def foreign(tmp_path):
    """A folder with a package `libs` of somebody else's, such as ActionFormer's repository."""
    (tmp_path / "foreign" / "libs" / "core").mkdir(parents=True)
    for name in ("libs", "libs/core"):
        (tmp_path / "foreign" / name / "__init__.py").touch()
    return tmp_path / "foreign"


def start(*arguments, foreign, path=True):
    """Python in the foreign folder; `path`: with that and the repository on Python's path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path:
        environment["PYTHONPATH"] = f"{foreign}{os.pathsep}{ROOT}"
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=foreign, env=environment, capture_output=True, text=True)


def names_both(line, foreign):
    return str(foreign / "libs") in line and str(ROOT / "libs") in line and "PYTHONPATH" in line


def test_commands_name_a_foreign_package_libs(foreign, tmp_path):
    script = tmp_path / "bin" / "actionformer-nt"  # as pip writes it
    script.parent.mkdir()
    script.write_text(
        "import sys\nfrom actionformer_nt.commands.main import main\nsys.exit(main())\n", encoding="utf-8"
    )
    for arguments in (
        (script, "configs"),
        ("-m", "actionformer_nt", "configs"),
        (ROOT / "tools/train.py", "x"),
    ):
        done = start(*arguments, foreign=foreign)
        assert done.returncode == 2, arguments
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and names_both(line, foreign)
    (foreign / "libs").rename(foreign / "lib")
    assert start(script, "configs", foreign=foreign).returncode == 0


def test_importing_beside_a_foreign_package_libs_is_an_import_error(foreign):
    done = start("-c", "import actionformer_nt", foreign=foreign)
    *_, line = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("ImportError: ") and names_both(line, foreign)

    shutil.rmtree(foreign / "libs")
    (foreign / "libs.py").touch()  # a module
    line = start("-c", "import actionformer_nt", foreign=foreign).stderr.splitlines()[-1]
    assert line.startswith("ImportError: ") and str(foreign / "libs.py") in line and str(ROOT / "libs") in line


def test_a_foreign_folder_libs_hides_an_editable_installation(foreign):
    """A folder without __init__.py, as ActionFormer's, is found before what setuptools finds for editable packages."""
    (foreign / "libs" / "__init__.py").unlink()
    code = f"""if True:
        import importlib.util, os, sys
        class Editable:
            def find_spec(name, path=None, target=None):
                folder = os.path.join({str(ROOT)!r}, name)
                if name in ("libs", "actionformer_nt"):
                    return importlib.util.spec_from_file_location(name, folder + "/__init__.py")
        sys.meta_path.append(Editable)
        sys.path.append({sysconfig.get_path("purelib")!r})
        import actionformer_nt
    """
    done = start("-S", "-c", code, foreign=foreign, path=False)
    assert done.returncode == 1 and names_both(done.stderr.splitlines()[-1], foreign), done.stderr
    shutil.rmtree(foreign / "libs")
    done = start("-S", "-c", code, foreign=foreign, path=False)
    assert done.returncode == 0, done.stderr


def test_a_link_to_the_packages_is_not_foreign(tmp_path):
    (tmp_path / "libs").symlink_to(ROOT / "libs")
    done = start("-c", "import actionformer_nt, libs; print(libs.__file__)", foreign=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(str(tmp_path / "libs")), done.stderr


def test_class_names_are_shown_whatever_letters_the_locale_has(make_data, event, tmp_path):
    events = {f"v{i}": [event(1.0, 3.0, 0, "glas füllen"), event(4.0, 6.0, 1, "倒水")] for i in range(6)}
    path = make_data(events)
    found = [{"segment": e["segment"], "label": e["label"], "score": 0.5} for e in events["v4"]]
    (tmp_path / "r.json").write_text(json.dumps({"results": {"v4": found, "v5": found}}, ensure_ascii=False))
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    arguments = ["--annotations", str(path.parent / "annotations.json"), "--split", "test", "--per-class"]
    done = subprocess.run(
        [sys.executable, "-m", "actionformer_nt", "evaluate", str(tmp_path / "r.json"), *arguments,
         "--csv", str(tmp_path / "r.csv")],
        env=environment, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert rb"glas f\xfcllen" in done.stdout and b"average mAP 100.00" in done.stdout
    assert "倒水" in (tmp_path / "r.csv").read_text(encoding="utf-8")


def test_no_key_is_suggested_that_is_not_meant(make_data, tmp_path, capsys):
    path = str(make_data())
    for key, suggested in (("model.use_trident_head", False), ("model.use_rel_p", True), ("opt.lr", False)):
        assert main(["-q", "eval", path, str(tmp_path), "--set", f"{key}=1"]) == 2
        error = capsys.readouterr().err
        assert f"unknown key '{key}'" in error and ("did you mean" in error) == suggested


def test_several_subsets_on_the_command_line(make_data, tmp_path, capsys):
    path = make_data()
    annotations = path.parent / "annotations.json"
    database = json.loads(annotations.read_text())["database"]
    found = {v: [{**e, "score": 0.5} for e in entry["annotations"]] for v, entry in database.items()}
    (tmp_path / "r.json").write_text(json.dumps({"results": found}))
    command = ["evaluate", str(tmp_path / "r.json"), "--annotations", str(annotations), "--split"]
    assert main([*command, "test", "training"]) == 0
    shown = capsys.readouterr().out
    assert "annotations test, training" in shown and "average mAP 100.00" in shown and "not in the split" not in shown

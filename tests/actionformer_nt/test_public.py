"""What `import actionformer_nt` offers."""

import copy
import subprocess
import sys

import pytest

import actionformer_nt as ant
from libs.core import load_config


def test_importing_loads_neither_torch_nor_pydantic():
    code = "import sys, actionformer_nt as ant; print(ant.list_methods(), {'torch', 'pydantic'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['labeled_only', 'target'") and done.stdout.endswith("set()\n")


def test_every_name_is_there_and_no_other():
    assert sorted(ant.__all__) == dir(ant)
    assert all(getattr(ant, name) is not None for name in ant.__all__)
    assert ant.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        ant.fit  # noqa: B018


def test_a_dict_without_its_defaults():
    for call in (ant.train, ant.evaluate):
        with pytest.raises(ValueError, match="pass the file, or the result of load_config"):
            call({"dataset": {}}, "folder")


def test_a_supervised_run_from_a_file(make_data, tmp_path):
    path = make_data()
    folder = ant.train(path, tmp_path / "run", progress=False)
    found = ant.evaluate(str(path), folder, progress=False)
    assert set(found) == {"model"} and found["model"].result is not None
    assert (folder / "last.pth.tar").is_file()


def test_a_semi_supervised_run_leaves_the_configuration_as_it_is(make_semi, tmp_path):
    config = load_config(make_semi())
    before = copy.deepcopy(config)
    folder = ant.train(config, tmp_path / "run", progress=False)
    assert set(ant.evaluate(config, folder, progress=False)) == {"student", "teacher"}
    assert config == before
    with pytest.raises(ValueError, match="already holds a run"):
        ant.train(config, folder, progress=False)

import copy
import json
from pathlib import Path

import pytest
import yaml

from libs.core import dump_config, load_config, register_config_section, resolve_config, set_key
from libs.core.schema import Count, Section

CONFIGS = Path(__file__).parents[2] / "configs"


def public_configs():
    path = Path(__file__).parents[1] / "data" / "reference" / "actionformer_state_dicts.json"
    return json.loads(path.read_text())


def assert_contains(config, expected, prefix=""):
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_contains(config[key], value, f"{prefix}{key}.")
        else:
            assert config[key] == value, prefix + key


@pytest.mark.parametrize("name", sorted(public_configs()))
def test_public_configs_resolve_to_the_values_of_actionformer(name):
    assert_contains(load_config(CONFIGS / name), public_configs()[name]["resolved_config"])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_what_is_written_is_what_was_read(path, tmp_path):
    config = load_config(path)
    dump_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_loading_shares_nothing_and_aliases_what_actionformer_aliases(make_data):
    path = make_data()
    first = load_config(path)
    untouched = copy.deepcopy(first)
    assert first["model"]["train_cfg"] is first["train_cfg"] and first["model"]["test_cfg"] is first["test_cfg"]
    first["train_cfg"]["dropout"] = 0.9
    first["train_cfg"]["head_empty_cls"].append(1)
    first["opt"]["schedule_steps"].append(3)
    first["model"]["regression_range"][0][0] = -1
    assert load_config(path) == untouched


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "'1e-4'", "0.0001"])
def test_numbers_that_yaml_takes_for_strings(make_data, text):
    path = make_data()
    path.write_text(path.read_text().replace("learning_rate: 0.001", f"learning_rate: {text}"))
    assert load_config(path)["opt"]["learning_rate"] == 1e-4


def test_integers_stay_integers(make_data):
    config = load_config(make_data())
    assert isinstance(config["dataset"]["feat_stride"], int) and isinstance(config["opt"]["learning_rate"], float)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("opt", {"learning_rat": 1}, ["opt.learning_rat", "did you mean 'learning_rate'"]),
        ("model", {"n_heads": 4}, ["model.n_heads", "did you mean 'n_head'"]),
        ("sed", {"x": 1}, ["sed"]),
        ("train_cfgs", {}, ["train_cfgs", "did you mean 'train_cfg'"]),
        ("opt", {"epochs": "many"}, ["opt.epochs", "many"]),
        ("opt", {"epochs": True}, ["opt.epochs", "True"]),
        ("opt", {"learning_rate": float("nan")}, ["opt.learning_rate", "nan"]),
        ("dataset", {"feat_folder": 3}, ["dataset.feat_folder", "3"]),
        ("dataset", {"crop_ratio": [0.9, 1.5]}, ["crop_ratio", "1.5"]),
        ("dataset", {"input_dim": [4, 4]}, ["embd_dim", "[4, 4]"]),
        ("dataset", {"max_seq_len": 62}, ["max_seq_len", "62", "64"]),
        ("model", {"regression_range": [[0, 4], [4, 8]]}, ["regression_range", "2 ranges", "3"]),
        ("model", {"n_mha_win_size": [5, 5]}, ["n_mha_win_size", "2 entries", "3"]),
        ("model", {"use_rel_pe": True, "n_mha_win_size": 6}, ["n_mha_win_size", "6", "odd", "7"]),
        ("model", {"n_head": 3}, ["embd_dim", "n_head 3"]),
        ("model", {"fpn_dim": 16}, ["fpn_dim 16", "embd_dim 8"]),
        ("model", {"fpn_start_level": 5}, ["fpn_start_level 5"]),
        ("model", {"scale_factor": 3}, ["scale_factor 3"]),
        ("model", {"input_dim": 99}, ["model.input_dim", "99", "dataset.input_dim"]),
        ("model", {"backbone_arch": [2, 2]}, ["model.backbone_arch", "[2, 2]", "more entries"]),
        ("model", {"train_cfg": {"dropuot": 1}}, ["model.train_cfg", "top level"]),
        ("dataset", {"num_frames": -4}, ["dataset.num_frames", "-4"]),
        ("model", {"backbone_type": "conv2"}, ["model.backbone_type", "conv2"]),
        ("test_cfg", {"nms_method": "softer"}, ["test_cfg.nms_method", "softer"]),
        ("train_cfg", {"head_empty_cls": [7]}, ["head_empty_cls", "7"]),
        ("train_split", ["Training"], ["train_split", "lower case"]),
        ("model_name", "SPOTT", ["model_name", "SPOTT", "LocPointTransformer"]),
        ("plugins", ["no_such_module_anywhere"], ["plugins", "no_such_module_anywhere"]),
    ],
)
def test_mistakes_are_refused_by_name(make_data, section, values, words):
    path = make_data(**{section: values})
    with pytest.raises(ValueError) as error:
        load_config(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_missing_file_and_broken_yaml(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.yaml"):
        load_config(tmp_path / "no.yaml")
    for text, word in (
        ("a: [1", "not a YAML file"), ("- 1", "mapping"), ("opt: {}\nopt: {}", "line 2: key 'opt' is given twice"),
        ("? [a, b]\n: 1", "unhashable key"),
    ):  # fmt: skip
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ValueError, match=word):
            load_config(tmp_path / "bad.yaml")


def test_a_key_within_lists():
    raw = {"a": {"b": [{"c": 1}, {"c": 2}, [3, 4]]}}
    for key, value in (("a.b.1.c", 5), ("a.b.2.0", 6), ("a.b.0", {"d": {}}), ("a.b.0.d.e", 7), ("x.0", 8)):
        set_key(raw, key, value)
    assert raw == {"a": {"b": [{"d": {"e": 7}}, {"c": 5}, [6, 4]]}, "x": {"0": 8}}
    for key, words in (
        ("a.b.3.c", "'3': no entry of the list there; expected 0 to 2"), ("a.b.-1", "'-1': no entry of the list"),
        ("a.b.c", "'c': no entry of the list"), ("a.b.1.c.d", "'c' is not a section"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            set_key(raw, key, 0)


def test_plugin_section(make_data, monkeypatch):
    class Mine(Section):
        size: Count = 3

    path = make_data(mine_cfg={"size": 4})
    with pytest.raises(ValueError, match="mine_cfg"):
        load_config(path)
    monkeypatch.setattr("libs.core.registry.SECTIONS._entries", {})
    register_config_section("mine_cfg", Mine)
    assert load_config(path)["mine_cfg"] == {"size": 4}
    raw = yaml.safe_load(path.read_text())
    raw["mine_cfg"] = {"siz": 4}
    with pytest.raises(ValueError, match=r"mine_cfg.siz.*did you mean 'size'"):
        resolve_config(raw)
    register_config_section("opt", "nowhere:Mine")
    with pytest.raises(ValueError, match=r"built in: \['opt'\]"):
        load_config(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("s*/*.yaml")), ids=lambda p: p.name)
def test_semi_supervised_configurations_and_studies_load(path, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)  # they name the splits from the top of the checkout
    if path.parent.name == "study":
        from actionformer_nt.study.plan import load_study

        assert load_study(path).runs()
        return
    from actionformer_nt.protocol.splits import read_split

    config = load_config(path)
    split = config["semi_cfg"]["split"]
    if "demo" not in path.name:  # its split is made by the demonstration
        assert read_split(split["file"], split["ratio"], split["fold"]).labeled
    assert not config["test_cfg"]["ext_score_file"] and config["train_cfg"]["ema_ramp"]

"""Small text files: UTF-8 with or without a mark, no key twice, and no dependence on the locale."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libs.core import load_config
from libs.core.files import load_json

ROOT = Path(__file__).parents[2]


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"ä": 1}).encode())
    assert load_json(tmp_path / "a.json") == {"ä": 1}


@pytest.mark.parametrize("text", ['{"x": {"v1": 1, "v2": 2, "v1": 3}}', '[{"v1": 1, "v1": 1}]'])
def test_a_key_that_stands_twice_is_named(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json: the key 'v1' stands more than once"):
        load_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"x": [{"a": 1}, {"a": 2}]}')  # two objects may have the same key
    assert load_json(tmp_path / "b.json") == {"x": [{"a": 1}, {"a": 2}]}


def test_every_reader_refuses_repeated_keys(tmp_path, make_data):
    from actionformer_nt.protocol.splits import read_split
    from libs.datasets.annotations import read_annotations
    from libs.evaluation.detections import read_results
    from libs.evaluation.score_fusion import read_video_scores
    from libs.evaluation.thresholds import read_thresholds

    path = tmp_path / "twice.json"
    path.write_text('{"database": {"v": {}, "v": {}}, "results": {}, "format": 1}')
    for read in (
        read_annotations,
        lambda p: read_results(p, {}),
        read_video_scores,
        read_thresholds,
        lambda p: read_split(p, 0.5),
    ):
        with pytest.raises(ValueError, match=r"twice\.json: the key 'v' stands more than once"):
            read(path)


def test_yaml_is_utf8_whatever_the_locale(make_data, tmp_path):
    path = make_data()
    path.write_bytes(b"\xef\xbb\xbf# \xc3\xa4\n" + path.read_bytes() + "output_folder: ./läufe\n".encode())
    text = path.read_text(encoding="utf-8-sig").replace(f"output_folder: {tmp_path / 'ckpt'}\n", "")
    path.write_text(text, encoding="utf-8")
    assert load_config(path)["output_folder"] == "./läufe"
    code = "import sys; from libs.core import load_config; print(ascii(load_config(sys.argv[1])['output_folder']))"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=True, capture_output=True)
    assert done.stdout.strip() == rb"'./l\xe4ufe'"


def test_every_text_file_is_opened_with_its_encoding():
    """Every `read_text`, `write_text` and `open` of the packages, binary modes apart."""
    missing = []
    for path in [p for root in ("libs", "actionformer_nt", "tools") for p in (ROOT / root).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            mode = next((str(a.value) for a in node.args[1:2] if isinstance(a, ast.Constant)), "r")
            opens = name == "open" and isinstance(node.func, ast.Name) and "b" not in mode
            text = opens or name in ("read_text", "FileHandler") or (name == "write_text" and len(node.args) == 1)
            if text and "encoding" not in {keyword.arg for keyword in node.keywords}:
                missing.append(f"{path}:{node.lineno}")
    assert not missing

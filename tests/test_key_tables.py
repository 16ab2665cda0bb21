"""The tables of keys in the docs say what the schemas say."""

import json
import re
import runpy
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from libs.core.actionformer_section import LocPointTransformerSection
from libs.core.schema import Count, Fraction, Number, RootSection, Section

ROOT = Path(__file__).parents[1]
TOOL = runpy.run_path(str(ROOT / "tools" / "key_tables.py"))
PAGES = [path for path in TOOL["pages"]() if "<!-- keys:" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_are_up_to_date(path):
    text = path.read_text(encoding="utf-8")
    assert TOOL["with_tables"](text) == text, "run python tools/key_tables.py"
    assert text.count("<!-- keys:") == text.count("<!-- end -->") == len(TOOL["TABLE"].findall(text))


def test_every_table_is_on_some_page():
    found = [name for path in PAGES for name in re.findall("<!-- keys: (.+?) -->", path.read_text(encoding="utf-8"))]
    assert sorted(found) == sorted(TOOL["TABLES"])


@pytest.mark.parametrize("name", TOOL["TABLES"])
def test_every_key_has_a_meaning(name):
    rows = list(TOOL["TABLES"][name]())
    assert rows and [key for key, _, _, meaning in rows if not meaning.endswith(".")] == []


def test_keys_that_are_marked_as_ours_are_those_that_actionformer_does_not_have():
    path = ROOT / "tests" / "data" / "reference" / "actionformer_state_dicts.json"
    theirs = {
        f"{section}.{key}"
        for entry in json.loads(path.read_text()).values()
        for section, keys in entry["resolved_config"].items()
        if isinstance(keys, dict)
        for key in keys
    }
    rows = [*TOOL["key_rows"](RootSection), *TOOL["key_rows"](LocPointTransformerSection, "model.")]
    keys = {key.strip("`") for key, *_ in rows if "." in key}
    ours = {key.strip("`") for key, *_ in TOOL["own_rows"]()}
    theirs.add("opt.early_stop_epochs")  # which its scripts ask for with a default
    assert ours - {"plugins"} == keys - theirs


class Inner(Section):
    size: Count = 3
    """How large."""


class Outer(Section):
    path: str
    """Where it
    is."""
    pair: tuple[Fraction, Number] = (0, 0.5)
    kind: Literal["a", "off"] | None = None
    rates: Annotated[list[float] | float, Field(gt=0)] = 1e-3
    first: Inner = Inner()
    second: Inner = Inner(size=4)
    extra: dict[str, Any] = {}
    values: list[Any] | list[object] = []


def test_rows_of_a_section():
    assert list(TOOL["key_rows"](Outer, "x.")) == [
        ("`x.path`", "string", "required", "Where it is."),
        ("`x.pair`", "[number ≥ 0, ≤ 1, number]", "`[0, 0.5]`", ""),
        ("`x.kind`", "`a`, `off` or `null`", "`null`", ""),
        ("`x.rates`", "list of number or number > 0", "`0.001`", ""),
        ("`x.first`", "section", "", ""),
        ("`x.first.size`", "integer > 0", "`3`", "How large."),
        ("`x.second`", "like `x.first`", "`{size: 4}`", ""),
        ("`x.extra`", "mapping", "`{}`", ""),
        ("`x.values`", "list of anything", "`[]`", ""),
    ]


def test_an_old_table_is_replaced_and_the_rest_of_a_page_stays():
    page = "before\n\n<!-- keys: study -->\n| gone |\n<!-- end -->\n\nafter <!-- end -->\n"
    made = TOOL["with_tables"](page)
    assert made.startswith("before\n\n<!-- keys: study -->\n\n| key | type | default | meaning |\n|--")
    assert made.endswith(" |\n\n<!-- end -->\n\nafter <!-- end -->\n") and "gone" not in made
    assert TOOL["with_tables"](made) == made
    with pytest.raises(KeyError, match="nothing"):
        TOOL["with_tables"](page.replace("study", "nothing"))

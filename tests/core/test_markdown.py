import pytest

from libs.core.markdown import markdown_table


def test_cells_stay_as_they_are():
    rows = [("0.50", 12, "+1.20", "1e-4"), ("±", 1_000, "", "int | None")]
    title, rule, *lines = markdown_table(["", "n", "n", "a | b"], rows).split("\n")
    assert title == "|  | n | n | a \\| b |"
    assert set(rule) == {"|", "-"} and rule.count("|") == 5 and "||" not in rule
    assert lines == ["| 0.50 | 12 | +1.20 | 1e-4 |", "| ± | 1000 |  | int \\| None |"]


def test_a_table_may_be_empty_but_not_ragged():
    assert markdown_table(["one", "two"], []).split("\n")[0] == "| one | two |"
    for row in (("cell",), ("cell", "cell", "cell")):
        with pytest.raises(ValueError):
            markdown_table(["one", "two"], [("cell", "cell"), row])

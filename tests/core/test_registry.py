"""Names in a configuration and what they stand for."""

import functools
import sys

import pytest

from libs.core.registry import Registry


class One:
    pass


class Other:
    pass


def test_names_are_found_and_classes_are_built():
    registry = Registry("thing")
    assert registry.register("one")(One) is One
    registry.register("later", "collections:OrderedDict")
    assert registry.names() == ["one", "later"] and registry.get("one") is One
    assert registry.build("later", a=1) == {"a": 1}
    with pytest.raises(ValueError, match=r"unknown thing 'two'; known: \['later', 'one'\]"):
        registry.build("two")


def test_one_name_is_one_thing():
    registry = Registry("thing")
    registry.register("one", One)
    with pytest.raises(ValueError, match="thing 'one' is already registered"):
        registry.register("one", Other)
    assert registry.get("one") is One
    reloaded = type("One", (), {"__module__": One.__module__, "__qualname__": "One"})
    registry.register("one", reloaded)  # as after importlib.reload
    assert registry.get("one") is reloaded


def test_callables_without_a_name_of_their_own():
    registry = Registry("thing")
    partial = functools.partial(dict, a=1)
    registry.register("partial", partial)
    registry.register("partial", partial)
    assert registry.build("partial") == {"a": 1}
    with pytest.raises(ValueError, match="already registered"):
        registry.register("partial", functools.partial(dict, a=2))
    registry.register("made", lambda: 1)
    with pytest.raises(ValueError, match="already registered"):  # another one, although both are called <lambda>
        registry.register("made", lambda: 2)
    assert registry.build("made") == 1


def test_some_kinds_are_replaced():
    registry = Registry("thing", replace=True)
    registry.register("one", One)
    registry.register("one", Other)
    assert registry.get("one") is Other


def test_a_reloaded_module_is_used_anew(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "thing_of_test.py").write_text("class Thing:\n    size = 1\n")
    registry = Registry("thing")
    registry.register("thing", "thing_of_test:Thing")
    assert registry.get("thing").size == 1
    module = sys.modules["thing_of_test"]
    module.Thing = type("Thing", (), {"size": 2, "__module__": "thing_of_test"})
    registry.register("thing", "thing_of_test:Thing")
    assert registry.get("thing").size == 2


def test_what_is_named_is_imported_at_first_use():
    registry = Registry("thing")
    registry.register("broken", "no_such_module:thing")
    with pytest.raises(ImportError):
        registry.get("broken")

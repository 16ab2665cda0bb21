"""Names in a configuration and what they stand for."""

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


def test_what_is_named_is_imported_at_first_use():
    registry = Registry("thing")
    registry.register("broken", "no_such_module:thing")
    with pytest.raises(ImportError):
        registry.get("broken")

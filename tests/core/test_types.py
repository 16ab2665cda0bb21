"""The types of a configuration say what its schema says."""

import types
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from typing_extensions import NotRequired, get_type_hints

from libs.core import schema
from libs.core import types as config_types

SECTIONS = {
    "DatasetConfig": schema.DatasetSection,
    "LoaderConfig": schema.LoaderSection,
    "OptConfig": schema.OptSection,
    "TrainConfig": schema.TrainSection,
    "TestConfig": schema.TestSection,
}


def plain(annotation):
    """A set of what a value may be in a resolved configuration, where tuples have become lists."""
    if get_origin(annotation) in (Annotated, NotRequired):
        return plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        found = frozenset().union(*map(plain, get_args(annotation)))
        return found - {int} if float in found else found
    if get_origin(annotation) in (list, tuple):
        return frozenset({(list, frozenset().union(*map(plain, get_args(annotation))))})
    if get_origin(annotation) is Literal:
        return frozenset(get_args(annotation))
    return frozenset({annotation})


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_has_the_type_of_the_schema(name):
    hints = get_type_hints(getattr(config_types, name), include_extras=True)
    fields = SECTIONS[name].model_fields
    assert list(hints) == list(fields)
    for key, field in fields.items():
        expected = plain(field.annotation)
        if key == "early_stop_epochs":  # a resolved configuration has the key only where a number is given
            expected = expected - {type(None)}
        assert plain(hints[key]) == expected, key


def test_the_whole_has_every_section():
    own = get_type_hints(config_types.Config)
    assert [*schema.RootSection.model_fields, "semi_cfg"] == list(own)

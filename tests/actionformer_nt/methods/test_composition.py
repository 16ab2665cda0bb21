"""Methods with settings, and methods that are composed of a class side and location sides."""

import sys
from dataclasses import replace

import pytest
import torch

from actionformer_nt import method_sections
from actionformer_nt.config import SemiSection
from actionformer_nt.methods import METHODS, Evidence, Lesson, Method, Options, get_method, needs_truth
from actionformer_nt.methods.composed import Composed


def semi(**keys):
    return SemiSection(split={"file": "split.json"}, burn_in=1, **keys)


def evidence(**more):
    probs = torch.tensor([[0.96, 0.04, 0.0], [0.5, 0.4, 0.1], [0.02, 0.97, 0.01], [0.3, 0.3, 0.4]])
    selected = torch.tensor([True, True, False, True])
    return Evidence(probs=probs, scores=torch.tensor([0.9, 0.8, 0.7, 0.6]), selected=selected, **more)


class Counted(Method):
    """Adds to the weights what it has seen."""

    teacher_views = ({"shift": 1},)

    def __init__(self, weight=1.0):
        self.weight, self.seen = weight, 0.0

    def observe(self, evidence):
        self.seen += self.weight * len(evidence)

    def locate(self, evidence, lessons, options):
        return [replace(lesson, v=self.seen + (0 if lesson.v is None else lesson.v)) for lesson in lessons]

    def state(self):
        return {"seen": self.seen}

    def load_state(self, state):
        self.seen = state["seen"]


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_fixmatch_ignores_what_the_teacher_is_not_sure_of(form):
    e, options = evidence(), Options(form=form)
    method = get_method("fixmatch")
    (lesson,) = method.locate([e], method.teach([e], options), options)
    (target,) = get_method("target").teach([e], options)
    assert lesson.ignore.tolist() == [False, True, False, True]
    assert torch.equal(lesson.y[e.selected], target.y[e.selected])
    assert torch.equal(lesson.w[e.selected], target.w[e.selected])
    at_half = get_method("fixmatch", {"fixmatch": {"threshold": 0.5}})  # at least the threshold, so .5 is enough
    assert at_half.locate([e], at_half.teach([e], options), options)[0].ignore.tolist() == [False, False, False, True]


def test_a_composed_method_has_the_classes_of_one_and_the_places_of_the_others():
    e, options = evidence(), Options()
    method = get_method("nt+fixmatch", {"fixmatch": {"threshold": 0.6}})
    (lesson,) = method.locate([e], method.teach([e], options), options)
    (nt,) = get_method("nt").teach([e], options)
    assert torch.equal(lesson.y, nt.y) and torch.equal(lesson.w, nt.w)
    assert lesson.ignore.tolist() == [False, True, False, True] and method.spares and not method.needs_truth
    assert needs_truth("fixmatch+oracle_class") and not needs_truth("labeled_only")


def test_parts_of_a_composed_method_keep_statistics_of_their_own():
    first, second = Counted(), Counted(10.0)
    both = Composed({"one": first, "two": second})
    both.observe([evidence(), evidence()])
    assert both.state() == {"one/seen": 2.0, "two/seen": 20.0} and len(both.teacher_views) == 1
    lesson = Lesson(y=torch.ones(1, 1), w=torch.ones(1, 1))
    assert both.locate([evidence()], [lesson], Options())[0].v == 22.0
    again = Composed({"one": Counted(), "two": Counted(10.0)})
    again.load_state(both.state())
    assert (again.parts["one"].seen, again.parts["two"].seen) == (2.0, 20.0)


def test_methods_that_do_not_go_together():
    with pytest.raises(ValueError, match="nt and soft both say what is taught about the classes"):
        get_method("nt+fixmatch+soft")
    for name in ("nt+labeled_only", "nt+nt"):
        with pytest.raises(ValueError, match="expected different methods with pseudo labels"):
            get_method(name)
    with pytest.raises(ValueError, match="did you mean 'fixmatch'"):
        get_method("nt+fixmach")


def test_settings_are_in_the_configuration():
    assert semi(method=["nt", "fixmatch"]).method == "nt+fixmatch"
    assert semi(method="nt+fixmatch").method_options == {"fixmatch": {"threshold": 0.95}}
    given = semi(method="fixmatch", method_options={"fixmatch": {"threshold": 0.7}})
    assert given.make_method().settings.threshold == 0.7
    assert semi(method="nt").method_options == {} and semi(method="labeled_only").make_method() is None
    wrong = {
        ": nt: .*the method nt has no settings": ("nt", {"nt": {"threshold": 1}}),
        ": fixmatch: without effect for method nt": ("nt", {"fixmatch": {}}),
        ": json: the name of a module has dots.*json.decoder: {...}": ("json.decoder", {"json": {"decoder": {"a": 1}}}),
        r"\.fixmatch\.treshold' \(value 0\.5\); did you mean 'threshold'": (
            "fixmatch",
            {"fixmatch": {"treshold": 0.5}},
        ),
        r"\.fixmatch\.threshold: 2: .*less than or equal": ("fixmatch", {"fixmatch": {"threshold": 2}}),
    }
    for message, (method, options) in wrong.items():
        with pytest.raises(ValueError, match=f"method_options{message}"):
            semi(method=method, method_options=options)


def test_the_settings_of_built_in_methods_are_known_without_importing_them():
    schemas = {name: m.schema for name in METHODS if (m := get_method(name)) and m.schema}
    assert schemas == dict(method_sections.SECTIONS)


def test_a_module_may_have_settings(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "with_settings"
    folder.mkdir()
    (folder / "bold.py").write_text(
        "from actionformer_nt.methods import Method\nfrom libs.core.schema import Section\n"
        "class Own(Section):\n    weight: float\n"
        "class Bold(Method):\n    schema = Own\n"
        "    def locate(self, evidence, lessons, options):\n        return lessons\n"
    )
    name = "with_settings.bold"
    config = semi(method=name, method_options={name: {"weight": 2}})
    assert "with_settings.bold" not in sys.modules  # not imported to read a configuration
    assert config.make_method().settings.weight == 2.0 and not needs_truth(name)
    for given, message in (({}, "weight' is required"), ({"weight": 1, "w": 1}, "w' .value 1.")):
        with pytest.raises(ValueError, match=f"method_options.{name}.{message}"):
            semi(method=name, method_options={name: given}).make_method()


def test_parts_add_to_what_a_lesson_has():
    """In both orders the units that one ignores stay ignored, and boundary weights are multiplied."""
    first, second = torch.tensor([True, False, False, False]), torch.tensor([False, False, True, False])
    lesson = Lesson(y=torch.zeros(4, 2), w=torch.ones(4, 2), v=torch.tensor([0.0, 1.0, 1.0, 0.5]))
    for a, b in ((first, second), (second, first)):
        assert lesson.ignoring(a).ignoring(b).ignore.tolist() == [True, False, True, False]
    assert lesson.weighing(torch.tensor([0.5, 0.5, 1.0, 1.0])).v.tolist() == [0.0, 0.5, 1.0, 0.5]
    e = evidence()
    assert lesson.kept(e).tolist() == [True, True, False, True]
    kept = replace(lesson, keep=torch.ones(4, dtype=torch.bool)).ignoring(first)
    assert kept.kept(e).tolist() == [False, True, True, True]
    method = get_method("fixmatch", {"fixmatch": {"threshold": 0.6}})
    (found,) = method.locate([e], [kept], Options())  # units that `keep` adds are looked at too
    assert found.ignore.tolist() == [True, True, False, True]


def test_a_method_and_a_part_of_it_are_not_composed():
    with pytest.raises(ValueError, match="apl does what apl_quality does; leave out apl_quality"):
        get_method("apl_quality+apl")


def test_equal_views_of_the_teacher_are_made_once():
    assert len(get_method("npl+plr").teacher_views) == len(get_method("plr").teacher_views) == 2

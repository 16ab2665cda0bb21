"""Classes that become each other when a video is played backwards."""

import pytest
import torch

from actionformer_nt.methods import Lesson, Method
from actionformer_nt.pseudo_sections import ViewSection
from actionformer_nt.self_training.setup import played_backwards, set_up
from actionformer_nt.self_training.views import labeled_view, make_view
from libs.core import load_config

IDS = {"sit": 0, "stand_up": 1, "sit_down": 2}


def test_which_class_each_is():
    assert played_backwards([("stand_up", "sit_down")], IDS, 4).tolist() == [0, 2, 1, 3]
    assert played_backwards([], IDS, 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"reversed_classes: 'stand' is not one of the classes \['sit', 'sit_down'"):
        played_backwards([("stand", "sit_down")], IDS, 3)
    with pytest.raises(ValueError, match="'sit' is in it more than once"):
        played_backwards([("sit", "sit_down"), ("stand_up", "sit")], IDS, 3)


@pytest.mark.parametrize("options", [{"flip": 1.0}, {"flip": 1.0, "shift": 3, "warp": 0.2, "crop": 0.1}, {"warp": 0.3}])
def test_a_flipped_view_has_the_swapped_labels(options):
    video = {"video_id": "v", "feats": torch.zeros(2, 40), "segments": torch.tensor([[5.0, 12.0], [20.0, 30.0]]),
             "labels": torch.tensor([1, 0])}  # fmt: skip
    view = labeled_view(video, "strong", ViewSection(**options), 0, 0, backwards=torch.tensor([0, 2, 1]))
    _, geometry = make_view(video["feats"], ViewSection(**options), torch.Generator().manual_seed(0))
    assert geometry.reverses == ("flip" in options)
    assert view["labels"].tolist() == ([2, 0] if "flip" in options else [1, 0])


class Told(Method):
    def __init__(self, lessons):
        self.lessons = lessons

    def teach(self, evidence, options):
        return self.lessons


@pytest.mark.parametrize("arch", ["LocPointTransformer", "SPOT"])
def test_a_teacher_that_sees_a_class_teaches_its_reverse_on_a_flipped_view(make_semi, arch):
    path = make_semi(arch=arch, method="target", strong={"flip": 1.0}, reversed_classes=[["class0", "class1"]])
    run = set_up(load_config(path))
    given = [Lesson(y=torch.tensor([[0.9, 0.1]]), w=torch.tensor([[1.0, 0.5]])) for _ in range(2)]
    run.teacher.method = Told(given)
    lesson = run.teacher.teach([run.stages.unlabeled[0], run.stages.unlabeled[1]], run.stages.burn_in, run.model)
    for targets in lesson.lessons:
        assert torch.equal(targets.y, torch.tensor([[0.1, 0.9]]))
        assert torch.equal(targets.w, torch.tensor([[0.5, 1.0]]))
    swapped = run.teacher._swapped(Lesson(y=torch.tensor([0.1, 0.2, 0.7]), w=torch.tensor([1.0, 2.0, 3.0])))
    assert torch.equal(swapped.y, torch.tensor([0.2, 0.1, 0.7])) and swapped.w.tolist() == [2.0, 1.0, 3.0]

"""A pyramid adapter with a teacher and a student whose outputs are given."""

from types import SimpleNamespace

import pytest
import torch

from actionformer_nt.methods import Options, get_method
from actionformer_nt.self_training.setup import set_up
from actionformer_nt.self_training.views import Geometry
from libs.core import load_config
from libs.modeling.assignment import pyramid_points
from libs.modeling.meta_archs import PyramidOutput

RANGES = [(0, 8), (8, 10000)]


def _output_for(found, num_classes=2, length=32, low=-6.0):
    """A network that is sure: points inside a segment have its logits and its exact distances to both ends.

    Args:
        found: list of ((start, end), logits); later ones win.
    """
    points = pyramid_points([length, length // 2], [1, 2], RANGES, torch.device("cpu"))
    z, offsets = [], []
    for level in points:
        zl, ol = torch.full((len(level), num_classes), low), torch.full((len(level), 2), 0.01)
        for (start, end), own in found:
            inside = (level[:, 0] > start) & (level[:, 0] < end)
            zl[inside] = torch.as_tensor(own)
            ol[inside] = torch.stack([level[inside, 0] - start, end - level[inside, 0]], 1) / level[inside, 3:4]
        z.append(zl[None])
        offsets.append(ol[None])
    masks = [torch.ones(1, len(level), dtype=torch.bool) for level in points]
    return PyramidOutput(z, offsets, masks, points)


@pytest.fixture
def output_for():
    return _output_for


@pytest.fixture
def network():
    return Network


class Network:
    """A network with given outputs, one per video id."""

    device, loss_normalizer = torch.device("cpu"), 20.0

    def __init__(self, outputs):
        self.made = outputs

    def batches(self, videos):
        return [SimpleNamespace(index=[i], feats=v, mask=None, lengths=None) for i, v in enumerate(videos)]

    def infer(self, batch):
        made = self.made[batch.feats["video_id"]]
        return made(batch.feats) if callable(made) else made

    def outputs(self, videos):
        rows = [self.infer(SimpleNamespace(feats=video)) for video in videos]
        logits, offsets, masks = (
            [torch.cat([getattr(row, name)[k] for row in rows]) for k in range(2)]
            for name in ("logits", "offsets", "masks")
        )
        return PyramidOutput(logits, offsets, masks, rows[0].points)


def video_of(name="v", steps=32):
    return {"video_id": name, "feats": torch.zeros(1, steps), "feat_stride": 30.0, "fps": 30.0}


@pytest.fixture
def adapter(make_semi):
    """The pyramid adapter of a configuration with the given keys of `semi_cfg`."""

    def make(arch=None, **semi):
        return set_up(load_config(make_semi(arch=arch, **semi))).teacher.self_training

    return make


@pytest.fixture
def taught():
    """Losses of a student on the pseudo labels of a teacher, and the gradients of its logits: {name: (P, C)}."""

    def losses(self_training, teacher_outputs, method="target", student=None, lesson=None):
        names = list(teacher_outputs)
        videos = [video_of(name) for name in names]
        student = Network(student or {name: _output_for([((4.0, 12.0), (0.0, 0.0))], low=-1.0) for name in names})
        for made in student.made.values():
            for z, r in zip(made.logits, made.offsets, strict=True):
                z.requires_grad_(), r.requires_grad_()
        pseudo = self_training.pseudo_labels(Network(teacher_outputs), videos)
        evidence = [self_training.evidence(labels) for labels in pseudo]
        options = Options(form=self_training.form)
        lessons = [lesson(e) for e in evidence] if lesson else get_method(method).teach(evidence, options)
        pairs = [self_training.taught(*pair) for pair in zip(pseudo, lessons, strict=True)]
        pseudo, lessons = [labels for labels, _ in pairs], [lesson for _, lesson in pairs]
        found, visible = self_training.losses(student, videos, videos, [Geometry()] * len(videos), pseudo, lessons)
        found["loss"].backward()
        grads = {name: torch.cat([z.grad[0] for z in student.made[name].logits]) for name in names}
        moved = {name: torch.cat([r.grad[0] for r in student.made[name].offsets]) for name in names}
        return SimpleNamespace(losses=found, visible=visible, logits=grads, offsets=moved, pseudo=pseudo)

    return losses

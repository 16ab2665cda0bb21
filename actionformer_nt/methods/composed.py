"""Composition of methods: the class side of one, the location side of others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from libs.datasets.video import VideoItem

from .base import Method
from .evidence import Evidence, Lesson, Matched, Options, Progress, Sizes, State, Trunk


class Composed(Method):
    """Several methods as one: the `teach` of the one that has its own, or else that of `target`; then the `locate` of
    this one and of the others in order, so that what it adds is filtered too. Views for the teacher and statistics are
    those of all of them.

    Args:
        parts: at least two methods by name, with their settings.

    Raises:
        ValueError: more than one of them has its own `teach`, or one is a part of another.
    """

    def __init__(self, parts: Mapping[str, Method]) -> None:
        self.parts = parts
        teaching = [name for name, part in parts.items() if type(part).teach is not Method.teach]
        if len(teaching) > 1:
            raise ValueError(
                f"method '{'+'.join(parts)}': {' and '.join(teaching)} both say what is taught about the classes; "
                "expected at most one such method"
            )
        for name, part in parts.items():
            if wider := [n for n, other in parts.items() if type(part) in type(other).__mro__[1:-2]]:  # up to Method
                raise ValueError(f"method '{'+'.join(parts)}': {wider[0]} does what {name} does; leave out {name}")
        self.teaching = parts[teaching[0]] if teaching else Method()
        self.order = [*teaching, *(name for name in parts if name not in teaching)]
        methods = list(parts.values())
        self.spares = any(part.spares for part in methods)
        self.needs_truth = any(part.needs_truth for part in methods)
        self.needs_student = any(part.needs_student for part in methods)
        self.needs_features = any(part.needs_features for part in methods)
        self.needs_quality = any(part.needs_quality for part in methods)
        self.teacher_views: list[Mapping[str, Any]] = []
        for view in (view for part in methods for view in part.teacher_views):
            if view not in self.teacher_views:
                self.teacher_views.append(view)
        self.student_views = [view for part in methods for view in part.student_views]
        self.has_lessons = any(part.has_lessons for part in methods)
        self.sigmoid_notice = "; ".join(part.sigmoid_notice for part in methods if part.sigmoid_notice) or None

    def each(self) -> list[Method]:
        return list(self.parts.values())

    def observe(self, evidence: list[Evidence]) -> None:
        for part in self.parts.values():
            part.observe(evidence)

    def teach(self, evidence: list[Evidence], options: Options) -> list[Lesson]:
        return self.teaching.teach(_with_modules_of(self.order[0], evidence), options)

    def locate(self, evidence: list[Evidence], lessons: list[Lesson], options: Options) -> list[Lesson]:
        for name in self.order:
            lessons = self.parts[name].locate(_with_modules_of(name, evidence), lessons, options)
        return lessons

    def consistency(self, pairs: list[list[Matched]], *, labeled: bool, progress: Progress) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        rest = list(pairs)
        for name, part in self.parts.items():
            own, rest = rest[: len(part.student_views)], rest[len(part.student_views) :]
            if own:
                found = part.consistency(own, labeled=labeled, progress=progress)
                losses |= {f"{name}_{key}": loss for key, loss in found.items()}
        return losses

    def modules(self, sizes: Sizes) -> nn.Module | None:
        found = {name: part.modules(sizes) for name, part in self.parts.items()}
        own = {_key(name): module for name, module in found.items() if module is not None}
        return nn.ModuleDict(own) if own else None

    def auxiliary(
        self, videos: list[VideoItem], trunk: Trunk, *, labeled: bool, progress: Progress
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            own = trunk._replace(modules=_module_of(name, trunk.modules))
            found = part.auxiliary(videos, own, labeled=labeled, progress=progress)
            losses |= {f"{name}_{key}": loss for key, loss in found.items()}
        return losses

    def renew(self) -> None:
        for part in self.parts.values():
            part.renew()

    def pretext(self, videos: list[VideoItem], trunk: Trunk) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            found = part.pretext(videos, trunk._replace(modules=_module_of(name, trunk.modules)))
            losses |= {f"{name}_{key}": loss for key, loss in found.items()}
        return losses

    def state(self) -> State:
        return {f"{name}/{key}": value for name, part in self.parts.items() for key, value in part.state().items()}

    def load_state(self, state: State) -> None:
        for name, part in self.parts.items():
            start = f"{name}/"
            part.load_state({key.removeprefix(start): value for key, value in state.items() if key.startswith(start)})


def _key(name: str) -> str:
    """Key of a method's modules; those of a module have dots."""
    return name.replace(".", "_")


def _module_of(name: str, modules: nn.Module | None) -> nn.Module | None:
    """The modules of one of the methods; None if it has none."""
    return modules[_key(name)] if isinstance(modules, nn.ModuleDict) and _key(name) in modules else None


def _with_modules_of(name: str, evidence: list[Evidence]) -> list[Evidence]:
    """Evidence whose modules are those of one of the methods."""
    return [
        e
        if e.averaged is None
        else replace(e, averaged=e.averaged._replace(modules=_module_of(name, e.averaged.modules)))
        for e in evidence
    ]

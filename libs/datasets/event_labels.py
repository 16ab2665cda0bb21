"""Class ids of the labels in an annotation file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .labels import label_number, label_text, whole_number


class EventLabels:
    """Maps the labels of a file's events to class ids.

    Args:
        path: annotation file, for messages.
        events: (location for messages, event) of all events of the file.
        classes: the file's list `classes`; None: the file has no such list.
        given: class name -> id; replaces collecting the classes from the events.
        source: where `given` is from, for messages.

    Attributes:
        ids: class name -> id over all subsets: `given`; else from `label_id`; else in the order of `classes`; else in
            alphabetical order.
        own_ids: whether the ids are from the file or from `given`.
    """

    def __init__(
        self,
        path: str,
        events: Iterable[tuple[str, dict[str, object]]],
        *,
        classes: object,
        given: dict[str, int] | None,
        source: str,
    ) -> None:
        self.path, self.source, self.frozen = path, source, given is not None
        self.ids: dict[str, int] = dict(given or {})
        self.own_ids = True
        self.aliases: dict[str, int] = {}  # label -> id, of labels that are class ids themselves, such as "3"
        unnumbered: dict[str, object] = {}  # name -> label, of events without label_id
        unnamed: dict[int, str] = {}  # id -> location of its first event, of events without label
        for where, event in events:
            label, number = event.get("label"), event.get("label_id")
            if number is None and label is None:
                raise ValueError(f"{where}: an event has neither 'label' nor 'label_id': {event}")
            if number is None:
                unnumbered.setdefault(label_text(label, where), label)
            elif label is None:
                unnamed.setdefault(label_number(number, where), where)
            else:
                self._add(label_text(label, where), label_number(number, where), where)
        for number, where in unnamed.items():
            self._add_unnamed(number, where)
        self._add_unnumbered({n: label for n, label in unnumbered.items() if n not in self.ids}, classes)

    def _add(self, name: str, number: int, where: str) -> None:
        if self.frozen and name not in self.ids:
            if (
                self.ids.get(str(number)) != number
            ):  # a class without a name is called by its id, "3": the file may name it
                raise ValueError(f"{where}: label '{name}' (label_id {number}) is not in {self.source}")
            return
        if self.ids.setdefault(name, number) != number:
            elsewhere = f"in {self.source}" if self.frozen else "elsewhere"
            raise ValueError(f"{where}: label '{name}' has label_id {number}, but {self.ids[name]} {elsewhere}")

    def _add_unnamed(self, number: int, where: str) -> None:
        if number in self.ids.values():
            return
        if self.frozen or str(number) in self.ids:
            raise ValueError(f"{where}: label_id {number} has no 'label', and no class of {self.source} has that id")
        self.ids[str(number)] = number

    def _add_unnumbered(self, labels: dict[str, object], classes: object) -> None:
        if not labels:
            return
        if self.ids or self.frozen:
            known = set(self.ids.values())
            self.aliases = {name: n for name, label in labels.items() if (n := whole_number(label)) in known}
            if missing := sorted(labels.keys() - self.aliases.keys()):
                if self.frozen:
                    raise ValueError(f"{self.path}: labels {missing} are not in {self.source}")
                raise ValueError(f"{self.path}: no label_id for the labels {missing}, while other events have one")
            return
        names = sorted(labels)
        if classes is not None and not isinstance(classes, list):
            raise ValueError(f"{self.path}: 'classes' is a {type(classes).__name__}, expected a list of names")
        if isinstance(classes, list):
            names = [label_text(name, f"{self.path}: 'classes'") for name in classes]
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{self.path}: the list 'classes' names {repeated} more than once")
        if missing := sorted(labels.keys() - set(names)):
            raise ValueError(f"{self.path}: labels {missing} are not in the file's list 'classes': {names}")
        self.ids, self.own_ids = {name: i for i, name in enumerate(names)}, False

    def of(self, event: Mapping[str, object], where: str) -> int:
        """The class id of one of the events."""
        if event.get("label_id") is not None:
            return label_number(event["label_id"], where)
        name = label_text(event["label"], where)
        return self.ids[name] if name in self.ids else self.aliases[name]

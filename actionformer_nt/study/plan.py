"""A study: the same training over a grid of methods, ratios, folds, seeds and values of one parameter.

`runner.py` starts the runs, `job.py` executes a run in a process of its own, `table.py` compares the results.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field, ValidationError, model_validator

from actionformer_nt.config import semi_section
from actionformer_nt.methods import LABELED_ONLY, check_method, parts_of
from libs.core import read_yaml, resolve_config, set_key, set_keys
from libs.core.files import load_json
from libs.core.schema import Count, Section

RawConfig: TypeAlias = dict[str, Any]  # a configuration as YAML has it: not checked, without defaults


# Keys that change nothing before self-training: their values may share a burn-in.
AFTER_BURN_IN = (
    "semi_cfg.method_options", "semi_cfg.lam", "semi_cfg.alpha", "semi_cfg.ramp_up", "semi_cfg.reg_weight",
    "semi_cfg.positive", "semi_cfg.positive_reduction", "semi_cfg.pseudo", "semi_cfg.weak", "semi_cfg.teacher_views",
    "semi_cfg.samples", "semi_cfg.watch", "semi_cfg.on_collapse", "semi_cfg.log_hidden", "semi_cfg.log_every",
    "semi_cfg.ckpt_every", "model.pseudo",
)  # fmt: skip
# Keys that change the labeled loss, but are part of what a method is: they may be a method's own (`per_method`). All
# methods start from the burn-in with the value of `labeled_only`; their own value counts from self-training on.
OF_METHODS = ("model.loss.class_form",)
STAGES = ("semi_cfg.stages",)  # may be a method's own as far as the stages before self-training are the same
# Keys of the data and of the evaluation, which are the same for all methods.
OF_STUDY = (
    "dataset", "dataset_name", "train_split", "val_split", "semi_cfg.split", "semi_cfg.reversed_classes",
    "semi_cfg.allow_external_scores", "test_cfg.ext_score_file",
)  # fmt: skip
READABLE = re.compile(r"[\w.+-]{1,40}")  # a text that may be part of a file name


class Parameter(Section):
    """A key of the configuration that the study varies."""

    name: str
    """Dotted key of the configuration."""
    values: list[Any]
    """Every value is a run of every method."""
    reference: Any = None
    """One of the values: the baseline method at the other values is compared with the baseline method at this one."""

    @model_validator(mode="after")
    def _check(self) -> Parameter:
        if None in self.values:
            raise ValueError(f"values: null in {self.values}: make a study without the parameter beside this one")
        if self.reference is not None and self.reference not in self.values:
            raise ValueError(f"reference: {self.reference}: expected one of values, {self.values}")
        return self


class StudyFile(Section):
    """What a study's YAML file may hold."""

    base: str
    """Configuration with `semi_cfg`."""
    output: str
    """Folder of results, runs and tables; one study at a time writes there."""
    methods: Annotated[list[str], Field(min_length=1)]
    """What is compared. `labeled_only` is run in any case, since it makes the burn-in."""
    ratios: Annotated[list[float], Field(min_length=1)]
    """Shares of labeled videos."""
    folds: Annotated[list[int], Field(min_length=1)] = [0, 1, 2, 3, 4]
    """Folds of the split file."""
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    """Values of `init_rand_seed`."""
    parameter: Parameter | None = None
    """A key of the configuration to vary."""
    baseline: str = "target"
    """Method that the others are compared with."""
    report: str = "student"
    """Whose mAP is compared: `student` or `teacher`."""
    set: dict[str, Any] = {}
    """Further keys of the configuration, dotted, the same in all runs."""
    per_method: dict[str, dict[str, Any]] = {}
    """Method -> further keys, dotted, for its runs: what its own paper says. Since the methods share the burn-in of
    `labeled_only`, only keys that change nothing before self-training are allowed, such as those of `semi_cfg.pseudo`,
    `semi_cfg.weak` and the later `semi_cfg.stages`, and `model.loss.class_form` of SPOT, which then counts from
    self-training on."""
    own_burn_in: list[str] = []
    """Methods whose runs do not start from the burn-in of `labeled_only` but make their own, since they need another
    detector or other stages before self-training; all keys but those of the data are allowed in their `per_method`."""
    expected_hours: float | None = None
    """For the reader: on one GPU, or as the file says."""
    min_pairs: Count = 5
    """Paired runs from which on an interval is given."""

    @model_validator(mode="after")
    def _check(self) -> StudyFile:
        for name in ("methods", "ratios", "folds", "seeds"):
            if len(set(values := getattr(self, name))) < len(values):
                raise ValueError(f"{name}: {values}: expected each one once")
        compares = len(self.methods) > 1 or "baseline" in self.model_fields_set
        if strange := [name for name in self.own_burn_in if name == LABELED_ONLY or name not in self.methods]:
            raise ValueError(
                f"own_burn_in: {strange}: expected methods of the study with pseudo labels, {self.methods}"
            )
        if compares and self.baseline not in self.methods:
            raise ValueError(f"baseline: {self.baseline}: expected one of methods, {self.methods}")
        return self


def label_of(value: Any) -> Any:
    """A value of the parameter as tables and file names have it: a number or a short word itself; a hash of a list, a
    mapping or any other text, the same wherever the value occurs."""
    if not isinstance(value, (list, dict, str)) or (isinstance(value, str) and READABLE.fullmatch(value)):
        return value
    text = json.dumps(value, sort_keys=True, default=str)
    return f"v{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Run:
    """One training run and its evaluation; the run folder and the result file are called `name`."""

    method: str
    ratio: float
    fold: int
    seed: int
    value: object = None  # value of the parameter

    @property
    def name(self) -> str:
        value = "" if self.value is None else f"_p{label_of(self.value)}"
        return f"{self.method}_r{self.ratio:g}_f{self.fold}_s{self.seed}{value}"


@dataclass(frozen=True)
class Study:
    """A study file, read and checked by `load_study`."""

    path: str
    file: StudyFile
    raw: RawConfig  # the base configuration, overrides applied

    @property
    def output(self) -> Path:
        return Path(self.file.output)

    def runs(self) -> list[Run]:
        """All runs. The `labeled_only` runs come first, since they make the burn-in of the others."""
        grid = [(r, f, s) for r in self.file.ratios for f in self.file.folds for s in self.file.seeds]
        values = self.file.parameter.values if self.file.parameter else [None]
        first = [
            Run(LABELED_ONLY, *key, value) for key in grid for value in ([None] if self.shares_burn_in else values)
        ]
        others = [m for m in self.file.methods if m != LABELED_ONLY]
        return first + [Run(m, *key, value) for key in grid for m in others for value in values]

    def config(self, run: Run) -> RawConfig:
        """The raw configuration of a run."""
        raw = copy.deepcopy(self.raw)
        for key, value in self.file.per_method.get(run.method, {}).items():
            set_key(raw, key, copy.deepcopy(value))
        set_key(raw, "init_rand_seed", run.seed)
        for key, value in (("method", run.method), ("split.ratio", run.ratio), ("split.fold", run.fold)):
            set_key(raw, f"semi_cfg.{key}", value)
        if run.value is not None and self.file.parameter is not None:
            set_key(raw, self.file.parameter.name, copy.deepcopy(run.value))
        self._keep_own_options(raw, run.method)
        if self.starts_from_burn_in(run):
            set_key(raw, "semi_cfg.burn_in_checkpoint", str(self.burn_in(run)))
        return raw

    def _keep_own_options(self, raw: RawConfig, method: str) -> None:
        """Takes away the settings of the study's other methods."""
        others = {part for name in self.file.methods for part in parts_of(name)} - set(parts_of(method))
        options = raw["semi_cfg"].get("method_options")
        if isinstance(options, dict):
            raw["semi_cfg"]["method_options"] = {k: v for k, v in options.items() if k not in others}

    @property
    def shares_burn_in(self) -> bool:
        """Whether all values of the parameter have the same burn-in."""
        if self.file.parameter is None:
            return True
        return _is_one_of(self.file.parameter.name, AFTER_BURN_IN)

    def starts_from_burn_in(self, run: Run) -> bool:
        """Whether a run starts from the burn-in of a `labeled_only` run, instead of making one."""
        return run.method not in (LABELED_ONLY, *self.file.own_burn_in)

    def waits(self, run: Run) -> bool:
        """Whether the burn-in from which a run starts is not there yet."""
        return self.starts_from_burn_in(run) and not self.burn_in(run).is_file()

    def maker(self, run: Run) -> Run:
        """The `labeled_only` run that makes the burn-in of a run."""
        return Run(LABELED_ONLY, run.ratio, run.fold, run.seed, None if self.shares_burn_in else run.value)

    def burn_in(self, run: Run) -> Path:
        """The checkpoint from which a run starts."""
        return self.output / "runs" / self.maker(run).name / "burn_in.pth.tar"

    def result_file(self, run: Run) -> Path:
        return self.output / "results" / f"{run.name}.json"


def digest(raw: RawConfig) -> str:
    """Hash of a raw configuration, without the devices: a study may go on on another machine."""
    trained = {key: value for key, value in raw.items() if key != "devices"}
    return hashlib.sha256(json.dumps(trained, sort_keys=True, default=str).encode()).hexdigest()[:16]


def is_stale(study: Study, run: Run) -> bool:
    """Whether there is a result of a run that was made with another configuration than the study has now."""
    path = study.result_file(run)
    return path.is_file() and load_json(path).get("config_hash") not in (None, digest(study.config(run)))


def load_study(path: str | os.PathLike, *, overrides: Sequence[str] = ()) -> Study:
    """Reads a study file.

    Args:
        overrides: KEY=VALUE strings for the base configuration.

    Raises:
        ValueError: names the wrong key, in the study or in the configuration.
    """
    try:
        file = StudyFile.model_validate(read_yaml(path))
    except ValidationError as error:
        lines = [": ".join([*map(str, e["loc"]), e["msg"].removeprefix("Value error, ")]) for e in error.errors()]
        raise ValueError(f"{path}: " + "; ".join(lines)) from None
    for method in [*file.methods, file.baseline]:
        check_method(method)
    if file.report not in ("student", "teacher"):
        raise ValueError(f"{path}: report: '{file.report}' is neither 'student' nor 'teacher'")
    raw = read_yaml(file.base)
    reserved = {"init_rand_seed", "semi_cfg.method", "semi_cfg.split.ratio", "semi_cfg.split.fold"}
    reserved |= {"semi_cfg.burn_in_checkpoint"} | ({file.parameter.name} if file.parameter else set())
    if unknown := sorted(file.per_method.keys() - {*file.methods, LABELED_ONLY}):
        raise ValueError(f"{path}: per_method: {unknown} are not among the methods {file.methods}")
    own = [key for keys in file.per_method.values() for key in keys]
    for key in [*file.set, *own, *(text.split("=", 1)[0] for text in overrides)]:
        if any(_is_one_of(key, [name]) or _is_one_of(name, [key]) for name in reserved):
            raise ValueError(
                f"{path}: '{key}' cannot be overridden: the study itself sets it, or a part of it, for every run"
            )
    for key, value in file.set.items():
        set_key(raw, key, copy.deepcopy(value))
    set_keys(raw, overrides)
    study = Study(str(path), file, raw)
    for run in study.runs():
        resolve_config(study.config(run), source=f"{path}, run {run.name}")
    _check_per_method(study)
    return study


def _is_one_of(key: str, names: Sequence[str]) -> bool:
    """Whether a dotted key is one of the given ones, or in a section among them."""
    return any(key == name or key.startswith(name + ".") for name in names)


def _check_per_method(study: Study) -> None:
    """Raises ValueError if a method's own keys change what comes before self-training, which all methods share."""
    for method, keys in study.file.per_method.items():
        if method in study.file.own_burn_in:
            if wrong := [key for key in keys if _is_one_of(key, OF_STUDY)]:
                raise ValueError(f"{study.path}: per_method: {method}: {', '.join(wrong)}: must be the same for all")
            continue
        allowed = (*AFTER_BURN_IN, *STAGES, *(() if method == LABELED_ONLY else OF_METHODS))
        if wrong := [key for key in keys if not _is_one_of(key, allowed)]:
            raise ValueError(
                f"{study.path}: per_method: {method}: {', '.join(wrong)}: may change the burn-in, which all methods "
                "share; set it for all of them (set), name the method in own_burn_in, or make another study. Allowed "
                f"are {', '.join(allowed)}"
            )
    if any(_is_one_of(key, STAGES) for keys in study.file.per_method.values() for key in keys):
        for run in filter(study.starts_from_burn_in, study.runs()):
            if _stages_before(study, run) != _stages_before(study, study.maker(run)):
                raise ValueError(
                    f"{study.path}: per_method: {run.method}: semi_cfg.stages: the stages before self-training, and "
                    f"their schedules, must be those of {LABELED_ONLY}, whose burn-in all methods share"
                )


def _stages_before(study: Study, run: Run) -> object:
    """The stages of a run before self-training."""
    from actionformer_nt.self_training.made_with import stages_begun

    semi = semi_section(resolve_config(study.config(run), source=study.path))
    return stages_begun(semi, sum(stage.iterations for stage in semi.plan() if stage.learn != "pseudo"))

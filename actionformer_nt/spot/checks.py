"""Whether the settings of self-training fit SPOT."""

from __future__ import annotations

from actionformer_nt.config import semi_section
from actionformer_nt.pseudo_sections import PseudoSection
from libs.core.types import Config


def check_spot(config: Config) -> None:
    """Raises ValueError if `semi_cfg` does not fit SPOT; names the key."""
    semi = semi_section(config)
    method = semi.make_method()
    if semi.stores_labels and (semi.teacher_views or (method is not None and method.teacher_views)):
        raise ValueError(
            f"semi_cfg.teacher_views, or those of method {semi.method}: SPOT averages over views of windows; leave "
            "them out, or use labels: views in stages"
        )
    if semi.stores_labels and config["model"]["pseudo"]["align"]:
        raise ValueError(
            "model.pseudo.align: true: the alignment follows the student from iteration to iteration; with stages "
            "that have labels: stored, set it to false"
        )
    views = any(stage.learn == "pseudo" and stage.labels == "views" for stage in semi.plan())
    if config["model"]["pseudo"]["unit"] == "events" and views:
        raise ValueError(
            "model.pseudo.unit: events: detections are chosen in whole videos; use labels: stored in all stages "
            "with learn: pseudo"
        )
    fields = type(semi).model_fields
    if other := [name for name in ("reg_weight", "positive") if getattr(semi, name) != fields[name].default]:
        raise ValueError(f"semi_cfg.{', semi_cfg.'.join(other)}: without effect for model_name: SPOT; leave out")
    given = semi.pseudo.model_dump()
    expected = PseudoSection(source=given["source"], refresh_every=given["refresh_every"]).model_dump()
    if unused := [name for name, value in expected.items() if given[name] != value]:
        raise ValueError(
            f"semi_cfg.pseudo.{', semi_cfg.pseudo.'.join(unused)}: without effect for model_name: SPOT, whose "
            "pseudo labels are set in model.pseudo"
        )

"""Whether the settings of pseudo labels fit ActionFormer's pyramid."""

from __future__ import annotations

from actionformer_nt.config import semi_section
from actionformer_nt.methods import needs_truth
from libs.core.types import Config
from libs.modeling.class_form import ClassForm


def check_pyramid(config: Config) -> None:
    """Raises ValueError if `semi_cfg.pseudo` does not fit ActionFormer's detector or the method; names the key."""
    semi = semi_section(config)
    pseudo, at_points = semi.pseudo, semi.pseudo.at_points
    method = semi.make_method()
    needs = {part.at_points for part in method.each()} - {None} if method is not None else set()
    if len(needs) > 1:
        raise ValueError(f"method {semi.method}: one of them is about points, another about segments")
    if needs and needs != {pseudo.partition == "dense"}:
        needed = "dense" if True in needs else "segments"
        raise ValueError(f"semi_cfg.pseudo.partition: {pseudo.partition}: method {semi.method} needs {needed}")
    if pseudo.partition == "dense" and needs_truth(semi.method):
        raise ValueError(f"method {semi.method} needs pseudo.partition: segments, found dense")
    if semi.stores_labels and pseudo.select == "topk":
        raise ValueError("semi_cfg.pseudo.select: topk counts the segments of a sample; not with labels: stored")
    if semi.stores_labels and at_points:
        raise ValueError(
            "semi_cfg.stages: labels: stored: pseudo labels at points (pseudo.partition: dense, pseudo.background: "
            "partition) cannot be cut from whole videos; use labels: views"
        )
    sigmoid = ClassForm(config["model"]["class_form"]) is ClassForm.SIGMOID
    if at_points and sigmoid and pseudo.background_logit is None:
        raise ValueError(
            "semi_cfg.pseudo.background_logit: the distribution at points needs one, since a sigmoid head has no "
            "logit of the background; at -0.85, say, an action with a score of .3 is as probable as the background"
        )
    if pseudo.background_logit is not None and not (at_points and sigmoid):
        raise ValueError(
            f"semi_cfg.pseudo.background_logit: {pseudo.background_logit}: without effect unless model.class_form "
            "is sigmoid and pseudo.partition: dense or pseudo.background: partition asks for it; leave it out"
        )
    if pseudo.second_class == "ignore" and not sigmoid:
        raise ValueError(
            "semi_cfg.pseudo.second_class: ignore: without effect with model.class_form: softmax, where the "
            "probabilities of an event's classes sum to 1; leave it out"
        )

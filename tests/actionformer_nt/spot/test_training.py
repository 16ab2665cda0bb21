"""What SPOT trains on: windows of labeled videos, and their class loss."""

from pathlib import Path

import pytest
import torch
import yaml

from actionformer_nt.config import semi_section
from actionformer_nt.methods.label_space import partition
from actionformer_nt.self_training.setup import set_up
from actionformer_nt.self_training.stages import place
from actionformer_nt.self_training.trainer import SemiTrainer
from actionformer_nt.spot.pseudo_masks import teacher_labels
from libs.core import load_config
from libs.core.interrupts import StopRequest

CONFIGS = Path(__file__).parents[3] / "configs" / "semi"
PAPER = sorted([*CONFIGS.glob("spot_thumos_*.yaml"), *CONFIGS.glob("spot_anet_*.yaml")])


def test_an_update_sees_as_many_different_windows_as_the_batch_is_large(make_semi, monkeypatch):
    """Six windows of two labeled videos: the network gets six different crops, and others in the next update."""
    path = make_semi(arch="SPOT", dataset={"max_seq_len": 20}, method="labeled_only", burn_in=2)
    raw = yaml.safe_load(path.read_text())
    raw["loader"]["batch_size"] = 6
    path.write_text(yaml.safe_dump(raw))
    run = set_up(load_config(path))
    assert len(run.stages.labeled) == 2
    seen, network = [], run.model.network
    monkeypatch.setattr(run.model, "network", lambda feats, mask: seen.append(feats) or network(feats, mask))
    trainer = SemiTrainer(run, observer=lambda snapshot: None)
    for videos in run.stages.videos(0, StopRequest()):
        trainer.step(videos)
        if len(seen) == 2:
            break
    windows = torch.cat(seen)
    assert windows.shape == (12, 8, 20)
    assert len(windows.flatten(1).unique(dim=0)) >= 10  # of 41 possible crops a few may be drawn twice


def negative_part(model, spot):
    """Class loss of one labeled video less its cross-entropy, and sum_{c != y} -log(1 - p_c), each over snippets."""
    video = spot.make_video([(1.5, 9.5)], [1], steps=20, channels=model.input_dim)
    (batch,) = model.batches([video])
    output, targets = model.network(batch.feats, batch.mask), model.targets(batch, [video])
    probs, classes = output.logits[0, :20].softmax(dim=-1), targets.classes[0, :20]
    target = probs.gather(1, classes[:, None])[:, 0]
    others = (1 - probs).log().sum(dim=1) - (1 - target).log()
    loss = model.losses(output, targets, batch.clean)["cls_loss"]
    return float((loss + target.log().mean()).detach()), float(-others.mean().detach())


@pytest.mark.parametrize(("form", "share"), [("target", 0.0), ("hybrid", 1.0)])
@pytest.mark.two_paths
def test_hybrid_adds_all_other_classes_of_labeled_snippets_as_negatives(in_64_bits, spot, form, share):
    model = spot.make_spot(loss={"class_form": form}, dropout=0.0, attn_dropout=0.0).train()
    found, negatives = negative_part(model, spot)
    assert negatives > 0.1
    assert found == pytest.approx(share * negatives, abs=1e-4)


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_configurations_of_the_papers_tables_have_the_papers_losses(spot, path):
    """Eq. 12: labeled negatives, weights 1; every snippet of an unlabeled video learns, without sharpening."""
    config = load_config(path)
    model = config["model"]
    options = {name: model[name] for name in ("loss", "pseudo")}
    small = spot.make_spot(**options, dropout=0.0, attn_dropout=0.0).train()
    found, negatives = negative_part(small, spot)
    assert negatives > 0.1 and found == pytest.approx(negatives, abs=1e-3)
    losses = small([spot.make_video([(1.5, 9.5)], [1], steps=20)])
    parts = ("cls_loss", "mask_loss", "refine_loss", "recon_loss")
    torch.testing.assert_close(losses["final_loss"], sum(losses[name] for name in parts))
    output = spot.random_output(1, 12, 3, grad=False)
    labels = teacher_labels(output, small.options.pseudo)
    assert labels.confident.all() and torch.equal(labels.probs, output.logits.softmax(dim=-1))
    assert not model["pseudo"]["align"]
    logits = torch.randn(1000, model["num_classes"] + 1, generator=torch.Generator().manual_seed(0))
    assert partition(logits.softmax(dim=-1), config["semi_cfg"]["lam"]).positive.any(dim=1).float().mean() > 0.1
    pretext, labeled, pseudo = place(semi_section(config))
    assert (pretext.start, pretext.schedule_end) == (
        0,
        labeled.schedule_start,
    )  # a cosine of its own for each of the two
    assert labeled.schedule_end == pseudo.end == pseudo.schedule_end
    assert (labeled.schedule_end - labeled.schedule_start) * 12 == pretext.schedule_end * 15

import pickle

import pytest
import torch
from torch import nn

from libs.training.checkpoint import find_checkpoint, load_checkpoint, load_state, save_checkpoint


def state(net, **more):
    return {"state_dict": net.state_dict(), "epoch": 1, **more}


def test_saved_state_is_read_back(tmp_path):
    net = nn.Linear(2, 3)
    save_checkpoint(state(net, optimizer={"x": 1}), True, str(tmp_path / "new"), "epoch_001.pth.tar")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["epoch_001.pth.tar", "model_best.pth.tar"]
    assert torch.equal(load_checkpoint(tmp_path / "new" / "epoch_001.pth.tar")["state_dict"]["weight"], net.weight)
    assert "optimizer" not in load_checkpoint(tmp_path / "new" / "model_best.pth.tar")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_checkpoint({"state_dict": {}, "epoch": 1}, False, str(tmp_path), "last.pth.tar")

    def fail(_state, file):
        file.write(b"half of")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint({"state_dict": {}, "epoch": 2}, False, str(tmp_path), "last.pth.tar")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "last.pth.tar")["epoch"] == 1


class Malicious:
    def __reduce__(self):
        return print, ("code ran",)


def test_bad_files(tmp_path, capsys):
    torch.save({"state_dict": {}, "x": Malicious()}, tmp_path / "code")
    with open(tmp_path / "code2", "wb") as file:
        pickle.dump(Malicious(), file)
    for name in ("code", "code2"):
        with pytest.raises(ValueError, match="could run code"):
            load_checkpoint(tmp_path / name)
    assert "code ran" not in capsys.readouterr().out
    good = tmp_path / "good"
    torch.save({"state_dict": nn.Linear(50, 50).state_dict()}, good)
    (tmp_path / "cut").write_bytes(good.read_bytes()[:3000])
    (tmp_path / "noise").write_bytes(b"hello" * 100)
    (tmp_path / "empty").write_bytes(b"")
    for name in ("cut", "noise", "empty"):
        with pytest.raises(ValueError, match=f"{name}: damaged or not a checkpoint"):
            load_checkpoint(tmp_path / name)
    torch.save({"weights": 1}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"'state_dict'.*weights"):
        load_checkpoint(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none")


def test_which_checkpoint(tmp_path):
    for name in ("epoch_009.pth.tar", "epoch_100.pth.tar", "epoch_099.pth.tar", "last.pth.tar", "epoch_7.txt"):
        (tmp_path / name).touch()
    assert find_checkpoint(tmp_path).name == "epoch_100.pth.tar"  # by number, not by name
    assert find_checkpoint(tmp_path, 9).name == "epoch_009.pth.tar"
    assert find_checkpoint(tmp_path / "last.pth.tar") == tmp_path / "last.pth.tar"
    with pytest.raises(FileNotFoundError, match=r"epoch 8.*\[9, 99, 100\]"):
        find_checkpoint(tmp_path, 8)
    with pytest.raises(FileNotFoundError):
        find_checkpoint(tmp_path / "nowhere")
    (tmp_path / "sub").mkdir()
    with pytest.raises(FileNotFoundError, match="no file epoch_NNN"):
        find_checkpoint(tmp_path / "sub")


@pytest.mark.parametrize("wrap_model", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_prefix_of_data_parallel(prefix, wrap_model):
    net, other = nn.Linear(2, 3), nn.Linear(2, 3)
    weights = {prefix + k: v for k, v in net.state_dict().items()}
    load_state(nn.DataParallel(other) if wrap_model else other, weights)
    assert torch.equal(net.weight, other.weight)


def test_another_configuration_is_described():
    with pytest.raises(ValueError) as error:
        load_state(nn.Linear(2, 3), {"weight": torch.zeros(3, 4), "extra": torch.zeros(1)}, source="x.pth")
    for word in ("x.pth", "another configuration", "weight: shape (3, 4)", "(3, 2)", "not in the file: bias", "extra"):
        assert word in str(error.value)

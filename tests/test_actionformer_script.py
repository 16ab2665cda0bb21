"""A training and evaluation script written against ActionFormer's interface runs as it stands."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

SCRIPT = """
import os, sys
import torch
import torch.nn as nn
from torch.utils.tensorboard import SummaryWriter
from libs.core import load_config
from libs.datasets import make_dataset, make_data_loader
from libs.modeling import make_meta_arch
from libs.utils import (train_one_epoch, valid_one_epoch, ANETdetection, save_checkpoint, make_optimizer,
                        make_scheduler, fix_random_seed, ModelEma)

config_file, folder = sys.argv[1:]
cfg = load_config(config_file)
os.makedirs(folder, exist_ok=True)
tb_writer = SummaryWriter(os.path.join(folder, "logs"))
rng_generator = fix_random_seed(cfg["init_rand_seed"], include_cuda=True)
cfg["opt"]["learning_rate"] *= len(cfg["devices"])
cfg["loader"]["num_workers"] *= len(cfg["devices"])

train_dataset = make_dataset(cfg["dataset_name"], True, cfg["train_split"], **cfg["dataset"])
train_db_vars = train_dataset.get_attributes()
cfg["model"]["train_cfg"]["head_empty_cls"] = train_db_vars["empty_label_ids"]
train_loader = make_data_loader(train_dataset, True, rng_generator, **cfg["loader"])
model = make_meta_arch(cfg["model_name"], **cfg["model"])
model = nn.DataParallel(model, device_ids=cfg["devices"])
optimizer = make_optimizer(model, cfg["opt"])
num_iters_per_epoch = len(train_loader)
scheduler = make_scheduler(optimizer, cfg["opt"], num_iters_per_epoch)
model_ema = ModelEma(model)
max_epochs = cfg["opt"].get("early_stop_epochs", cfg["opt"]["epochs"] + cfg["opt"]["warmup_epochs"])
for epoch in range(0, max_epochs):
    train_one_epoch(train_loader, model, optimizer, scheduler, epoch, model_ema=model_ema,
                    clip_grad_l2norm=cfg["train_cfg"]["clip_grad_l2norm"], tb_writer=tb_writer, print_freq=1)
save_states = {"epoch": epoch + 1, "state_dict": model.state_dict(), "scheduler": scheduler.state_dict(),
               "optimizer": optimizer.state_dict(), "state_dict_ema": model_ema.module.state_dict()}
save_checkpoint(save_states, False, file_folder=folder, file_name="epoch_{:03d}.pth.tar".format(epoch + 1))
tb_writer.close()

val_dataset = make_dataset(cfg["dataset_name"], False, cfg["val_split"], **cfg["dataset"])
val_loader = make_data_loader(val_dataset, False, None, 1, cfg["loader"]["num_workers"])
checkpoint = torch.load(os.path.join(folder, "epoch_{:03d}.pth.tar".format(max_epochs)), map_location="cpu")
model = nn.DataParallel(make_meta_arch(cfg["model_name"], **cfg["model"]), device_ids=cfg["devices"])
model.load_state_dict(checkpoint["state_dict_ema"])
val_db_vars = val_dataset.get_attributes()
det_eval = ANETdetection(val_dataset.json_file, val_dataset.split[0], tiou_thresholds=val_db_vars["tiou_thresholds"])
mAP = valid_one_epoch(val_loader, model, -1, evaluator=det_eval, output_file=None,
                      ext_score_file=cfg["test_cfg"]["ext_score_file"], tb_writer=None, print_freq=1)
valid_one_epoch(val_loader, model, -1, evaluator=None, output_file=os.path.join(folder, "eval_results.pkl"))
print("mAP", mAP, sorted(train_db_vars))
"""


def test_runs_unchanged(make_data, tmp_path):
    path = make_data(devices=["cuda:0"], loader={"num_workers": 1})
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(path), str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "average mAP" in done.stdout and "['dataset_name', 'empty_label_ids', 'tiou_thresholds']" in done.stdout
    assert {"epoch_003.pth.tar", "eval_results.json", "logs"} <= {p.name for p in (tmp_path / "run").iterdir()}


def test_the_modules_of_utils_are_there_as_attributes():
    code = "import libs.utils as u; print(u.nms.batched_nms, u.metrics.ANETdetection, u.train_utils.train_one_epoch)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

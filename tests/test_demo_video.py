"""`make demo VIDEO=1` as a user runs it: from video files to detections in a new one."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]


def test_from_videos_to_detections(tmp_path):
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "demo_video.yaml", tmp_path / "configs")
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "demo_video.py"), "-q"], cwd=tmp_path, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
    shown = re.findall(r"^\$ actionformer-nt (\S+)", made.stdout, flags=re.MULTILINE)
    assert shown == ["extract", "check-data", "train", "eval", "predict"]
    assert float(re.search(r"average mAP (\S+)", made.stdout)[1]) > 40
    (line,) = re.findall("what happens in new.mp4: (.*)", made.stdout)
    truth = re.findall(r"(slide|circle) ([\d.]+)-([\d.]+) s", line)
    found = pd.read_csv(tmp_path / "demo" / "video" / "predictions" / "predictions.csv")
    assert truth
    for name, start, end in truth:
        same = found[found["label"] == name]
        overlap = (same["end"].clip(upper=float(end)) - same["start"].clip(lower=float(start))).clip(lower=0)
        union = same["end"].clip(lower=float(end)) - same["start"].clip(upper=float(start))
        assert (overlap / union).max() > 0.4, (name, start, end, found)
    written = {path.name for path in (tmp_path / "demo" / "video" / "predictions").iterdir()}
    assert {"new_overlay.mp4", "new.srt", "new.png", "predictions.json", "features"} <= written

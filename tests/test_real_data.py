"""Figures on real data; skipped where they are not there."""

import numpy as np
import pytest

from libs.core import load_config
from libs.evaluation import run as evaluation
from libs.evaluation.anet_detection import ANETdetection


def test_released_actionformer_detections_on_thumos14(real_data):
    evaluator = ANETdetection(str(real_data / "thumos14/annotations/thumos14.json"), "test", np.linspace(0.3, 0.7, 5))
    mean, average, recall = evaluator.evaluate(
        str(real_data / "thumos14/predictions/actionformer_thumos14_i3d.json"), verbose=False
    )
    np.testing.assert_allclose(100 * mean, [82.1316, 77.8042, 70.9537, 59.4005, 43.8841], atol=5e-5)
    assert 100 * average == pytest.approx(66.8348, abs=5e-5)
    np.testing.assert_allclose(100 * recall[:, 0], [83.7318, 79.5783, 73.9987, 64.3948, 53.0757], atol=5e-5)
    np.testing.assert_allclose(100 * recall[:, 1], [96.7803, 95.5021, 92.0742, 84.4129, 71.5825], atol=5e-5)
    assert evaluator.result.counts["predictions"] == 42400


@pytest.mark.two_paths
@pytest.mark.parametrize(
    ("weights", "average", "per_tiou"),
    [
        ("ema", 7.25, [14.19, 10.65, 7.59, 2.88, 0.95]),
        ("raw", 48.67, [62.01, 54.12, 50.82, 42.10, 34.32]),
    ],
)
def test_a_checkpoint_of_actionformer_on_gtea(in_64_bits, real_data, tmp_path, weights, average, per_tiou):
    source = real_data.parent / "reference" / "gtea_checkpoint"
    if not source.is_dir():
        pytest.skip(f"no reference checkpoint at {source}")
    checkpoint = tmp_path / "epoch_035.pth.tar"
    checkpoint.symlink_to((source / "epoch_035.pth.tar").resolve())
    config = load_config(source / "gtea.yaml")
    config["dataset"]["json_file"] = str(real_data / "gtea/annotations/gtea_split1.json")
    config["dataset"]["feat_folder"] = str(real_data / "gtea/features")
    config["devices"] = ["cpu"]
    result = evaluation.evaluate(config, checkpoint, weights=weights, progress=False).result
    np.testing.assert_allclose(100 * result.mAP, per_tiou, atol=0.02)
    assert 100 * result.average_mAP == pytest.approx(average, abs=0.01)

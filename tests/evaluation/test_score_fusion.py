import numpy as np
import pytest

from libs.evaluation.detections import make_detections
from libs.evaluation.score_fusion import fuse_scores, read_video_scores


def test_equals_actionformer(reference, tmp_path):
    z, expected = np.load(reference / "eval0.npz"), np.load(reference / "ext_scores_expected.npz")
    detections = make_detections(*(z[k] for k in ("video_id", "t_start", "t_end", "label", "score")))
    scores = read_video_scores(reference / "ext_scores.json")
    np.savez(tmp_path / "scores.npz", **scores)
    for given in (scores, read_video_scores(tmp_path / "scores.npz")):
        known = detections.video_id[np.isin(detections.video_id, list(given))]
        assert len(known) == len(detections.video_id)
        fused = fuse_scores(detections, given, num_pred=20, topk=2)
        assert len(fused.score) == len(expected["score"])
        for video in np.unique(expected["video_id"]):
            a, b = fused.video_id == video, expected["video_id"] == video
            found = np.stack([fused.t_start[a], fused.t_end[a], fused.label[a], fused.score[a]], axis=1)
            wanted = np.stack([expected[k][b] for k in ("t_start", "t_end", "label", "score")], axis=1)
            np.testing.assert_allclose(found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)], atol=1e-6)


def test_mistakes(tmp_path):
    detections = make_detections(["a", "b"], [0, 0], [1, 1], [0, 0], [0.5, 0.5])
    with pytest.raises(ValueError, match="'b'"):
        fuse_scores(detections, {"a": np.array([0.1, 0.9])})
    with pytest.raises(ValueError, match="pickle"):
        read_video_scores(tmp_path / "scores.pkl")
    (tmp_path / "s.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"s\.npz: damaged"):
        read_video_scores(tmp_path / "s.npz")
    for text, word in (
        ("{", "broken JSON"), ("{}", "found none"), ('{"a": ["x"]}', "class scores"), ('{"a": 0.3}', "'a'"),
        ('{"results": ["x"]}', "per video"), ('{"a": [NaN]}', "'a'"),
    ):  # fmt: skip
        (tmp_path / "s.json").write_text(text)
        with pytest.raises(ValueError, match=word):
            read_video_scores(tmp_path / "s.json")

import itertools
import json
import math
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from actionformer_nt.study import plan as study
from actionformer_nt.study import table as study_table
from actionformer_nt.study.statistics import (
    EXACT_PAIRS,
    detectable_effect,
    holm,
    paired_difference,
    power,
    sign_flip_p,
    t_interval,
)

ROOT = Path(__file__).parents[3]
COMMITTED = [
    path for folder in ("configs/study", "docs/results/earlier") for path in sorted((ROOT / folder).glob("*.yaml"))
    if (output := yaml.safe_load(path.read_text(encoding="utf-8"))["output"]).startswith("./docs/results")
    and (ROOT / output / f"{path.stem}.json").is_file()  # a plan has no table before its first run
]  # fmt: skip


def test_t_interval_has_the_quantiles_of_a_printed_table():
    for n, quantile in ((2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)):
        values = np.arange(n, dtype=float) ** 2
        deviation = math.sqrt(sum((v - sum(values) / n) ** 2 for v in values) / (n - 1))
        low, high = t_interval(values)
        assert (low + high) / 2 == pytest.approx(sum(values) / n)
        assert (high - low) / 2 == pytest.approx(quantile * deviation / math.sqrt(n), rel=2e-4)


def test_t_interval_covers_the_mean_where_the_bootstrap_does_not():
    rng = np.random.default_rng(0)
    draws = 1.0 + 2.0 * rng.standard_normal((4000, 5))
    covered = bootstrap = 0
    for values in draws:
        low, high = t_interval(values)
        covered += low <= 1.0 <= high
        means = values[rng.integers(0, 5, (1000, 5))].mean(axis=1)
        bootstrap += np.percentile(means, 2.5) <= 1.0 <= np.percentile(means, 97.5)
    assert 0.93 <= covered / len(draws) <= 0.97
    assert bootstrap / len(draws) < 0.90


def test_power_of_published_tables():
    for std, pairs, expected in (
        (1.0, 5, 0.40), (1.0, 10, 0.80), (1.5, 10, 0.47), (1.5, 20, 0.81), (1.5, 25, 0.89), (1.5, 30, 0.94),
        (2.0, 20, 0.565), (2.0, 30, 0.75),
    ):  # fmt: skip
        assert power(1.0, std=std, pairs=pairs) == pytest.approx(expected, abs=0.0051)
        assert power(-10.0, std=10 * std, pairs=pairs) == pytest.approx(expected, abs=0.0051)  # sign and unit


def test_power_is_the_share_of_simulated_tests_that_find_the_effect():
    rng = np.random.default_rng(1)
    for pairs, std, effect in ((2, 1.0, 10.0), (3, 1.0, 1.5), (5, 0.8, 1.35), (8, 2.0, 0.0)):
        draws = effect + std * rng.standard_normal((20000, pairs))
        quantile = {2: 12.706, 3: 4.303, 5: 2.776, 8: 2.365}[pairs]
        t = draws.mean(axis=1) / draws.std(axis=1, ddof=1) * math.sqrt(pairs)
        assert power(effect, std=std, pairs=pairs) == pytest.approx((abs(t) > quantile).mean(), abs=0.02)


def test_power_is_a_number_for_any_effect():
    for pairs in (2, 3, 5, 10, 30, 100):
        found = [power(effect, std=1.0, pairs=pairs) for effect in np.geomspace(1e-9, 1e4, 200)]
        assert found[0] == pytest.approx(0.05) and found[-1] == pytest.approx(1) and np.isfinite(found).all()
        assert (np.diff(found) > -1e-9).all()
    assert power(0.1, std=0.0, pairs=5) == 1 and power(0.0, std=0.0, pairs=5) == 0.05


def test_detectable_effect_is_found_in_four_of_five_simulated_studies():
    rng = np.random.default_rng(2)
    for pairs, std in ((2, 1.0), (5, 1.7), (10, 0.3), (40, 1.0)):
        effect = detectable_effect(std=std, pairs=pairs)
        draws = effect + std * rng.standard_normal((20000, pairs))
        quantile = {2: 12.706, 5: 2.776, 10: 2.262, 40: 2.023}[pairs]
        t = draws.mean(axis=1) / draws.std(axis=1, ddof=1) * math.sqrt(pairs)
        assert (abs(t) > quantile).mean() == pytest.approx(0.8, abs=0.02)
    normal = (1.95996 + 0.84162) / math.sqrt(10_000)  # what t comes to with many pairs
    assert detectable_effect(std=1.0, pairs=10_000) == pytest.approx(normal, rel=1e-3)
    assert detectable_effect(std=0.0, pairs=5) == 0


def enumerated_p(values):
    """The sign-flip p, from all 2^n assignments of signs one by one."""
    observed, hits = abs(sum(values)), 0
    for signs in itertools.product((1, -1), repeat=len(values)):
        hits += abs(sum(sign * value for sign, value in zip(signs, values, strict=True))) >= observed - 1e-9
    return hits / 2 ** len(values)


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_sign_flip_p_is_that_of_all_assignments_of_signs(values):
    assert sign_flip_p([float(v) for v in values]) == pytest.approx(enumerated_p(values))


def test_sign_flip_p_of_known_cases():
    assert sign_flip_p([1.0] * 5) == 2 / 32  # with five pairs, p cannot be smaller
    assert sign_flip_p([0.3, 0.1, 0.7, 2.0, 0.2, 0.4]) == 2 / 64
    assert sign_flip_p([1.0, -1.0]) == sign_flip_p([0.0, 0.0, 0.0]) == 1
    darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]  # Fisher (1935): 1,726 of 32,768
    assert sign_flip_p(darwin) * 2**15 == pytest.approx(1726)
    assert sign_flip_p([0.1, 0.2, -0.3, 0.4]) == sign_flip_p(
        [1.0, 2.0, -3.0, 4.0]
    )  # sums that are equal but for rounding


def test_sign_flip_p_of_many_pairs_agrees_with_random_signs_and_the_normal_distribution():
    values = np.random.default_rng(3).standard_normal(EXACT_PAIRS) + 0.3
    exact = sign_flip_p(values)
    signs = np.random.default_rng(4).choice([-1.0, 1.0], size=(200_000, EXACT_PAIRS))
    assert exact == pytest.approx((abs(signs @ values) >= abs(values.sum())).mean(), abs=0.005)
    more = np.concatenate([values, [0.0] * 3])  # zeros change no sum
    assert sign_flip_p(more) == pytest.approx(exact, abs=0.005) and sign_flip_p(more) == sign_flip_p(more)
    assert sign_flip_p(np.ones(100)) == pytest.approx(1 / 100_001)


def test_sign_flip_keeps_its_level():
    rng = np.random.default_rng(5)
    rejected = [sign_flip_p(rng.exponential(size=8) * rng.choice([-1, 1], size=8)) <= 0.05 for _ in range(4000)]
    assert 0.035 <= np.mean(rejected) <= 0.06


def test_holm_of_an_example_by_hand():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})  # .005 x 4, .01 x 3, .03 x 2, .04 x 1
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}) and list(found) == ["a", "b", "c", "d"]
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0} and holm({}) == {} and holm({"a": 0.2}) == {"a": 0.2}


def test_holm_keeps_the_probability_of_any_false_rejection():
    """Four true hypotheses, with t tests that share a baseline."""
    rng = np.random.default_rng(6)
    wrong = 0
    for _ in range(2000):
        scores = rng.standard_normal((5, 8))
        wrong += min(holm({i: sign_flip_p(scores[i] - scores[0]) for i in range(1, 5)}).values()) <= 0.05
    assert 0.01 <= wrong / 2000 <= 0.055


def test_pairs_are_the_runs_that_both_have():
    other = {(0, 0): 3.0, (1, 0): 5.0, (2, 0): 90.0, (4, 0): 10.0}
    base = {(4, 0): 7.0, (1, 0): 4.0, (3, 0): 50.0, (0, 0): 1.0}
    found = paired_difference(other, base)
    assert (found.pairs, found.mean, found.std) == (3, 2.0, 1.0)
    half = 4.303 / math.sqrt(3)
    assert found.interval == pytest.approx((2 - half, 2 + half), abs=1e-3)
    assert paired_difference(base, other).mean == -2
    assert found.p == enumerated_p([2.0, 1.0, 3.0]) == 0.25


def test_few_or_equal_differences():
    alone = paired_difference({0: 3.0}, {0: 1.0, 1: 2.0})
    assert (alone.pairs, alone.mean, alone.std, alone.interval, alone.detectable_effect) == (1, 2.0, None, None, None)
    none = paired_difference({0: 3.0}, {1: 2.0})
    assert none.pairs == 0 and none.mean is None and none.interval is None
    equal = paired_difference({0: 3.0, 1: 5.0}, {0: 1.0, 1: 3.0})
    assert equal.interval == (2.0, 2.0) and equal.detectable_effect == 0


def test_mistakes():
    with pytest.raises(ValueError, match="1 paired differences"):
        t_interval([1.0])
    with pytest.raises(ValueError, match="no difference"):
        sign_flip_p([])
    with pytest.raises(ValueError, match="at least 2"):
        detectable_effect(std=1.0, pairs=1)
    for std in (-1.0, math.nan):
        with pytest.raises(ValueError, match="std"):
            power(1.0, std=std, pairs=5)


@pytest.fixture
def copy_of_results(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    ignored = shutil.ignore_patterns("runs")
    shutil.copytree(ROOT / "docs/results", tmp_path / "docs/results", ignore=ignored)
    monkeypatch.chdir(tmp_path)


def _numbers(row):
    difference = row.get("difference") or {}
    keys = ("mean", "std", "pairs", "detectable_effect")
    values = [row["mean"], row["std"], *(difference.get(key) for key in keys), *(difference.get("interval") or [])]
    return [math.nan if value is None else value for value in values]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_tables_are_those_of_their_result_files(copy_of_results, path):
    plan = study.load_study(path.relative_to(ROOT))
    file = (plan.output / path.name).with_suffix(".json")
    committed = json.loads(file.read_text(encoding="utf-8"))
    study_table.write_table(plan)
    made = json.loads(file.read_text(encoding="utf-8"))
    assert made["rows"] and len(made["rows"]) == len(committed["rows"])
    for ours, theirs in zip(made["rows"], committed["rows"], strict=True):
        assert [ours[key] for key in ("method", "value", "ratio", "runs")] == [
            theirs[key] for key in ("method", "value", "ratio", "runs")
        ]
        assert _numbers(ours) == pytest.approx(_numbers(theirs), nan_ok=True, abs=1e-9)


def test_the_page_of_results_quotes_the_table_of_all_studies(copy_of_results):
    page = (ROOT / "docs/results/README.md").read_text(encoding="utf-8")
    for line in runpy.run_path(str(ROOT / "docs/results/intervals.py"))["table"]():
        assert line in page

"""Makes the split files of the trial (docs/results/trial.md): draws of labels in which groups of people take turns as
test, and the draws on which the recipe is chosen.

    python tools/trial_splits.py --data ../shared/data

The files under configs/splits are what it makes, byte for byte.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from actionformer_nt.protocol.split_file import SplitFile, write_splits
from actionformer_nt.protocol.splits import splits_with_tests
from libs.core.seeding import derive_seed
from libs.datasets.annotations import Annotations, Video, read_annotations

SEED = 0
DRAWS = 20  # of AN4 and 50 Salads: ten for the trial, and ten more for its rule of going on
ROOT = Path(__file__).parents[1]


def person(video: Video) -> str:
    """Who was recorded: the annotation file's `subject` (HAPT) or `speaker` (AN4); cook 01 of 50 Salads made 01-1."""
    for key in ("subject", "speaker"):
        if key in video.extra:
            return str(video.extra[key])
    return video.id.split("-")[0]


def taking_turns(
    data: Path, *, name: str, parts: int, draws: int, ratios: Sequence[float]
) -> tuple[SplitFile, SplitFile]:
    """The draws of the trial and the three draws for choosing the recipe, on one data set.

    Five people of the subset training are test people while the recipe is chosen and always training people in the
    trial. The others form `parts` groups, which take turns as test people of the trial: draw i tests group i % parts.
    """
    annotations = read_annotations(data / name)
    groups = {video.id: person(video) for video in annotations.videos}
    videos = sorted(groups)
    people = sorted(set(groups.values()))
    rng = random.Random(derive_seed(SEED, 0, "people"))
    candidates = sorted({groups[video.id] for video in annotations.of_subsets(["training"])})
    held_out = set(rng.sample(candidates, 5))
    others = [one for one in people if one not in held_out]
    rng.shuffle(others)
    turns = [set(others[part::parts]) for part in range(parts)]

    def recordings(chosen: set[str]) -> list[str]:
        return [video for video in videos if groups[video] in chosen]

    tests = [recordings(turns[draw % parts]) for draw in range(draws)]
    trial = splits_with_tests(annotations, videos, tests, ratios=ratios, seed=SEED, groups=groups)
    choose = [recordings(held_out)] * 3
    valid = splits_with_tests(annotations, videos, choose, ratios=ratios, seed=SEED + 1, groups=groups)
    return trial, valid


def an4(data: Path) -> tuple[SplitFile, SplitFile]:
    """AN4: the trial tests the 24 speakers of the subsets validation and test, who have no part in choosing the recipe.
    This tests 12 of the 60 training speakers in each of its three draws, other ones in each."""
    annotations: Annotations = read_annotations(data / "an4/annotations/an4.json")
    training = [video.id for video in annotations.of_subsets(["training"])]
    test = [video.id for video in annotations.of_subsets(["validation", "test"])]
    trial = splits_with_tests(annotations, [*training, *test], [test] * DRAWS, ratios=[0.1], seed=SEED)
    groups = {video.id: person(video) for video in annotations.videos}
    speakers = sorted({groups[video] for video in training})
    random.Random(derive_seed(SEED, 0, "people")).shuffle(speakers)
    tests = [[video for video in training if groups[video] in speakers[12 * i : 12 * (i + 1)]] for i in range(3)]
    valid = splits_with_tests(annotations, training, tests, ratios=[0.1], seed=SEED + 1)
    return trial, valid


def make(data: Path) -> dict[str, SplitFile]:
    """Name of each split file -> its content."""
    hapt = taking_turns(data, name="hapt/annotations/hapt.json", parts=5, draws=25, ratios=[0.02, 0.04])
    salads, salads_mid = (
        taking_turns(
            data, name=f"salads50/annotations/salads50_{level}_split1.json", parts=5, draws=DRAWS, ratios=[0.1]
        )
        for level in ("eval", "mid")
    )
    speech = an4(data)
    return {
        "hapt_trial": hapt[0], "hapt_valid": hapt[1], "an4_trial": speech[0], "an4_valid": speech[1],
        "salads50_trial": salads[0], "salads50_valid": salads[1], "salads50_mid_trial": salads_mid[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data", help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=ROOT / "configs/splits", help="folder of the split files")
    args = parser.parse_args()
    for name, content in make(args.data).items():
        write_splits(args.out / f"{name}.json", content)
        tests = sorted({len(test) for test in content["tests"]})
        print(f"{name}: {len(content['orders'])} draws, {tests} test videos, hash {content['hash']}")


if __name__ == "__main__":
    main()

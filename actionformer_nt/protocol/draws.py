"""Making split files: drawing which videos receive labels, or taking a list of them.

These are the only functions that read the labels of all training videos.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from libs.core.seeding import derive_seed
from libs.datasets.annotations import Annotations, Video

from .orders import stratified_order, uniform_order
from .split_file import RATIOS, SplitFile, split_content

ATTEMPTS = 1000  # draws of one fold before `grouped_splits` gives up


def make_splits(
    annotations: Annotations,
    subsets: Sequence[str],
    *,
    kind: str,
    ratios: Sequence[float] = RATIOS,
    folds: int = 5,
    seed: int = 0,
) -> SplitFile:
    """Draws the content of a split file.

    Args:
        kind: "stratified": the next video is always one of the class with the smallest labeled share (videos without
            events count as a class); "uniform": at random.
        ratios: shares of labeled videos that must be possible.

    Raises:
        ValueError: a ratio that gives no labeled video, or more than there are without the mark `"labeled": false`.
    """
    if kind not in ("stratified", "uniform"):
        raise ValueError(f"split kind '{kind}' is neither 'stratified' nor 'uniform'")
    videos = annotations.of_subsets(subsets)
    allowed = [video for video in videos if video.labeled]
    for ratio in ratios:
        if not 0 < ratio <= 1 or round(ratio * len(videos)) < 1:
            raise ValueError(
                f"ratio {ratio} leaves no labeled video of {len(videos)}; the smallest is {0.5 / len(videos):.4f}"
            )
        if round(ratio * len(videos)) > len(allowed):
            raise ValueError(
                f"ratio {ratio} asks for {round(ratio * len(videos))} labeled videos of {len(videos)}, but only "
                f"{len(allowed)} are not marked labeled: false; the largest ratio is {len(allowed) / len(videos):.4g}"
            )
    longest = round(max(ratios) * len(videos))
    order = stratified_order if kind == "stratified" else uniform_order
    orders = [order(allowed, longest, random.Random(derive_seed(seed, fold, kind))) for fold in range(folds)]
    return split_content(kind, annotations, subsets, videos, orders, ratios=list(ratios), seed=seed)


def published_split(annotations: Annotations, subsets: Sequence[str], listing: object, name: str) -> SplitFile:
    """A split file of one fold and ratio from a published list {"labeled": [ids], "unlabeled": [ids]}. Without
    "unlabeled", all other videos of the subsets are unlabeled. A prefix `v_` of an id is dropped if the annotations
    have the id without it.

    Args:
        listing: content of the list.
        name: file of the list, for messages.

    Raises:
        ValueError: ids that the annotations do not have, that occur twice, or that are in both lists; a labeled video
            that is marked `"labeled": false`.
    """
    videos = annotations.of_subsets(subsets)
    known = {video.id for video in videos}
    given = listing if isinstance(listing, dict) else {}
    lists = [given.get(key, []) for key in ("labeled", "unlabeled")]
    if "labeled" not in given or not all(
        isinstance(part, list) and all(isinstance(video, str) for video in part) for part in lists
    ):
        raise ValueError(f'{name}: expected {{"labeled": [video ids], "unlabeled": [video ids]}}')
    labeled = [_match_id(video, known, name) for video in given["labeled"]]
    rest = sorted(known - set(labeled))
    unlabeled = [_match_id(video, known, name) for video in given.get("unlabeled", rest)]
    for part, ids in (("labeled", labeled), ("unlabeled", unlabeled)):
        if repeated := sorted({video for video in ids if ids.count(video) > 1}):
            raise ValueError(f"{name}: the list '{part}' names {repeated} more than once")
    if marked := sorted(set(labeled) & {video.id for video in videos if not video.labeled}):
        raise ValueError(f"{name}: labeled videos {marked} are marked labeled: false in {annotations.path}")
    if both := sorted(set(labeled) & set(unlabeled)):
        raise ValueError(f"{name}: {len(both)} videos are labeled and unlabeled, the first is '{both[0]}'")
    if not labeled:
        raise ValueError(f"{name}: no labeled video")
    chosen = [video for video in videos if video.id in {*labeled, *unlabeled}]
    ratio = len(labeled) / len(chosen)
    return split_content("published", annotations, subsets, chosen, [labeled], ratios=[ratio], seed=None)


def marked_split(annotations: Annotations, subsets: Sequence[str]) -> SplitFile:
    """A split file of one fold and ratio from the marks in the annotation file: videos marked `"labeled": false` are
    unlabeled, all others labeled.

    Raises:
        ValueError: all videos are marked, or none.
    """
    videos = annotations.of_subsets(subsets)
    labeled = [video.id for video in videos if video.labeled]
    if len(labeled) in (0, len(videos)):
        raise ValueError(
            f"{annotations.path}: {len(labeled)} of {len(videos)} videos of {list(subsets)} are labeled; expected some "
            'with "labeled": false and some without'
        )
    ratio = len(labeled) / len(videos)
    return split_content("published", annotations, subsets, videos, [labeled], ratios=[ratio], seed=None)


def splits_with_tests(
    annotations: Annotations,
    videos: Sequence[str],
    tests: Sequence[Sequence[str]],
    *,
    ratios: Sequence[float],
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> SplitFile:
    """A split file in which every fold has test videos of its own. All other `videos` of a fold are for training. The
    order of their labels is stratified, and drawn again until the smallest ratio labels every class.

    Args:
        videos: ids of all videos that any fold uses; other videos of the file are used by none.
        tests: for each fold, ids of its test videos.
        ratios: shares of the training videos that must be possible.
        groups: group of each video, such as its user. If given, the labeled videos of a fold are of different groups,
            and folds with the same test videos label different videos.

    Raises:
        ValueError: unknown ids; a fold without enough videos to label, or whose classes cannot all be labeled.
    """
    by_id = {video.id: video for video in annotations.videos}
    if unknown := sorted(set(videos) - by_id.keys()):
        raise ValueError(f"{annotations.path} does not have {len(unknown)} of the videos, the first is '{unknown[0]}'")
    classes, subsets = set(annotations.label_ids.values()), sorted({by_id[video].subset for video in videos})
    orders: list[list[str]] = []
    for fold, test in enumerate(tests):
        pool = [by_id[video] for video in videos if video not in set(test)]
        counts = [round(ratio * len(pool)) for ratio in ratios]
        used: set[str] = set()
        if groups is not None:
            used = {video for other, order in zip(tests, orders, strict=False) if other == test for video in order}
        allowed = [video for video in pool if video.labeled and video.id not in used]
        rng = random.Random(derive_seed(seed, fold, "tests"))
        orders.append(_covering_order(allowed, counts, rng, classes, groups, f"fold {fold}"))
    return split_content(
        "stratified", annotations, subsets, [by_id[video] for video in videos], orders,
        ratios=list(ratios), seed=seed, tests=[list(test) for test in tests],
    )  # fmt: skip


def _covering_order(
    videos: Sequence[Video],
    counts: Sequence[int],
    rng: random.Random,
    classes: set[int],
    groups: Mapping[str, str] | None,
    where: str,
) -> list[str]:
    """Ids of `max(counts)` videos, of different groups if these are given, the first `min(counts)` of which have events
    of all classes. Raises ValueError if there is no such order."""
    by_id = {video.id: video for video in videos}
    for _ in range(ATTEMPTS):
        order = stratified_order(videos, len(videos), rng)
        if groups is not None:
            first = {groups[video]: video for video in reversed(order)}  # group -> its first video
            order = [video for video in order if first[groups[video]] == video]
        order = order[: max(counts)]
        found = {event.label_id for video in order[: min(counts)] for event in by_id[video].events}
        if len(order) == max(counts) and min(counts) > 0 and classes <= found:
            return order
    raise ValueError(
        f"{where}: {ATTEMPTS} draws of {min(counts)} to {max(counts)} labeled videos of {len(videos)} found none in "
        "which every class is labeled"
    )


def _match_id(video: str, known: set[str], name: str) -> str:
    for candidate in (video, video.removeprefix("v_")):
        if candidate in known:
            return candidate
    raise ValueError(f"{name}: video '{video}' is not among the annotated videos of these subsets")

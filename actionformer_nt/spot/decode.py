"""Class and mask probabilities of a window -> candidate segments, without a loop over snippets or thresholds.

A run is a maximal range of snippets above a threshold. There are two kinds of candidates, each for several thresholds:

* the runs of every row of the mask, with the classes that the snippet of that row proposes;
* the runs of every class, with the mask rows of the snippets in the run.

The score of a candidate is its class probability times its mask score, times the factor of a quality head if there is
one: that of the row's snippet, or the mean over the run of a class.

* class probability: mean over the run; with `class_score: query` and a run of a mask, the proposing snippet's;
* mask score: mean of the mask over the run (`mean`), or sum_in m / (|run| + sum_out m) over the mask inside and outside
  of the run (`iou`), which is lower for a fragment than for the whole mask.

SPOT's public code fills holes, which joins neighbouring instances, keeps one label per video, and gives masks of full
length the score of a part. This module does not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from libs.modeling.decode import Candidates

from .schema import DecodeSection
from .targets import to_segments


def runs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Runs of True in the rows of (R, T) -> row (N,) and half-open range [a, b), (N, 2), of each run, row by row."""
    edges = F.pad(x.to(torch.int8), (1, 1)).diff(dim=1)  # (R, T + 1)
    row, begin = (edges == 1).nonzero(as_tuple=True)
    end = (edges == -1).nonzero(as_tuple=True)[1]  # each row has as many ends as begins, in the same order
    return row, torch.stack([begin, end], dim=1)


def decode(
    probs: Tensor,
    masks: Tensor,
    options: DecodeSection,
    *,
    min_score: float = 0.0,
    max_candidates: int | None = None,
    min_length: float = 0.0,
    factor: Tensor | None = None,
) -> Candidates:
    """Candidates of a window of L valid snippets, by falling score. Duplicates keep their best score.

    Args:
        probs: (L, C + 1) class probabilities, the background last.
        masks: (L, L) mask probabilities, row = query.
        min_score: candidates have a higher score.
        max_candidates: number of candidates to keep; None: all.
        min_length: candidates are longer, in snippets.
        factor: (L,) factors of the scores.

    Returns:
        Segments in grid steps of the window; the range of snippets [a, b) becomes (a - 1/2, b - 1/2).
    """
    factor = probs.new_ones(len(probs)) if factor is None else factor
    parts = [_mask_runs(probs, masks, factor, options), _class_runs(probs, masks, factor, options)]
    ranges, scores, labels = (torch.cat(columns) for columns in zip(*parts, strict=True))
    keep = (scores > min_score) & (ranges[:, 1] - ranges[:, 0] > min_length)
    ranges, scores, labels = _best_of_equal(ranges[keep], scores[keep], labels[keep], len(probs))
    if max_candidates is not None:
        ranges, scores, labels = ranges[:max_candidates], scores[:max_candidates], labels[:max_candidates]
    return Candidates(to_segments(ranges), scores, labels)


def _mask_runs(probs: Tensor, masks: Tensor, factor: Tensor, options: DecodeSection) -> tuple[Tensor, Tensor, Tensor]:
    """Ranges (N, 2), scores (N,) and labels (N,) of the runs of mask rows."""
    best, classes = probs[:, :-1].topk(min(options.classes_per_snippet, probs.shape[1] - 1), dim=1)  # (L, K)
    proposed = best > options.snippet_threshold
    (query,) = proposed.any(dim=1).nonzero(as_tuple=True)  # (Q,)
    rows = masks[query]  # (Q, L)
    thresholds = rows.new_tensor(options.mask_thresholds)
    row, ranges = runs((rows[None] > thresholds[:, None, None]).flatten(0, 1))
    row = row % max(len(query), 1)
    distinct = _distinct(row, ranges, len(probs))  # different thresholds may give the same run
    row, ranges = row[distinct], ranges[distinct]
    total = F.pad(rows.double().cumsum(dim=1), (1, 0))  # (Q, L + 1)
    inside = total[row, ranges[:, 1]] - total[row, ranges[:, 0]]
    size = (ranges[:, 1] - ranges[:, 0]).double()
    mean = inside / size if options.mask_score == "mean" else inside / (size + total[row, -1] - inside)

    run, rank = proposed[query[row]].nonzero(as_tuple=True)  # one candidate per class that the query proposes
    label = classes[query[row[run]], rank]
    if options.class_score == "query":
        confidence = best[query[row[run]], rank]
    else:
        confidence = _class_means(probs, label, ranges[run])
    return ranges[run], confidence * mean[run].to(probs.dtype) * factor[query[row[run]]], label


def _class_runs(probs: Tensor, masks: Tensor, factor: Tensor, options: DecodeSection) -> tuple[Tensor, Tensor, Tensor]:
    """Ranges (N, 2), scores (N,) and labels (N,) of the runs of classes."""
    action = probs[:, :-1].T  # (C, L)
    thresholds = probs.new_tensor(options.class_thresholds)
    lowest = min(options.class_thresholds, default=1.0)
    (active,) = (action.amax(dim=1) > lowest).nonzero(as_tuple=True)  # (A,)
    row, ranges = runs((action[active][None] > thresholds[:, None, None]).flatten(0, 1))
    row = row % max(len(active), 1)
    distinct = _distinct(row, ranges, len(probs))
    row, ranges = row[distinct], ranges[distinct]
    label, (begin, end) = active[row], ranges.unbind(1)
    table = F.pad(masks.double().cumsum(0).cumsum(1), (1, 0, 1, 0))  # (L + 1, L + 1) summed-area table
    square = table[end, end] - table[begin, end] - table[end, begin] + table[begin, begin]
    size = (end - begin).double().square()
    rows = table[end, -1] - table[begin, -1]  # sum over the whole rows of the run
    mean = square / size if options.mask_score == "mean" else square / (size + rows - square)
    own = _class_means(factor[:, None], torch.zeros_like(label), ranges)
    return ranges, _class_means(probs, label, ranges) * mean.to(probs.dtype) * own, label


def _class_means(probs: Tensor, label: Tensor, ranges: Tensor) -> Tensor:
    """Mean probability (N,) of labels (N,) over ranges (N, 2)."""
    total = F.pad(probs.double().cumsum(dim=0), (0, 0, 1, 0))  # (L + 1, C + 1)
    mean = (total[ranges[:, 1], label] - total[ranges[:, 0], label]) / (ranges[:, 1] - ranges[:, 0])
    return mean.to(probs.dtype)


def _distinct(group: Tensor, ranges: Tensor, length: int) -> Tensor:
    """Indices of the first of every set of equal (group, range) pairs."""
    key = (group * (length + 1) + ranges[:, 0]) * (length + 1) + ranges[:, 1]
    order = key.argsort(stable=True)
    key = key[order]
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    return order[first]


def _best_of_equal(ranges: Tensor, scores: Tensor, labels: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Removes duplicates of (range, label), keeping the best score. Sorts by falling score, stably."""
    order = scores.argsort(descending=True, stable=True)
    ranges, scores, labels = ranges[order], scores[order], labels[order]
    kept = _distinct(labels, ranges, length).sort().values  # the first duplicate has the best score
    return ranges[kept], scores[kept], labels[kept]

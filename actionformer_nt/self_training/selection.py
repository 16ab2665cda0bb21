"""Which proposals the student learns from: thresholds of the score, fixed or per class, and what labeled events say."""

from __future__ import annotations

import torch
from torch import Tensor

from actionformer_nt.methods.evidence import State, tensor_of
from actionformer_nt.pseudo_sections import PseudoSection
from libs.core import distributed
from libs.datasets.dataset import TALDataset
from libs.datasets.video import VideoItem

from .pseudo_segments import PseudoSegments, overlap_matrix

MOMENTUM = 0.99  # of the running mean score of a class
WINDOW = 100  # unlabeled videos that the thresholds of `rate` come from
EXCEPTIONS = 0.01  # share of the labeled events that may overlap more than pseudo segments may
LEAST_OVERLAP = 0.25  # uncertain ends of neighbours may overlap by this share of the shorter, whatever the labels say


class Selector:
    """The rules of `pseudo.select`, with their running state.

    Args:
        options: `semi_cfg.pseudo`.
        rates: (C,) labeled events per minute of every class.
    """

    def __init__(self, options: PseudoSection, rates: Tensor) -> None:
        self.options, self.rates = options, rates
        self.class_scores = torch.zeros(len(rates))  # `per_class`: running mean of the best score in a video
        self.recent: list[_Scores] = []  # `rate`: proposals of the most recent videos

    def observe(self, proposals: list[PseudoSegments], minutes: list[float]) -> None:
        """Updates the running state with the videos of a batch, over all processes.

        Args:
            proposals, minutes: of this process's videos; the length of the view.
        """
        if self.options.select == "per_class":
            best = distributed.gather_shares([self._best(proposal) for proposal in proposals])
            for scores in best:
                updated = MOMENTUM * self.class_scores + (1 - MOMENTUM) * scores
                updated = torch.where(self.class_scores > 0, updated, scores)
                self.class_scores = torch.where(scores > 0, updated, self.class_scores)
        if self.options.select == "rate":
            videos = [self._scores(*pair) for pair in zip(proposals, minutes, strict=True)]
            self.recent = (self.recent + distributed.gather_shares(videos))[-WINDOW:]

    @property
    def informed(self) -> bool:
        """Whether the running state is known."""
        if self.options.select == "per_class":
            return bool((self.class_scores > 0).any())
        return self.options.select != "rate" or bool(self.recent)

    def thresholds(self) -> Tensor:
        """(C,) threshold of the score per class."""
        if self.options.select == "rate":
            return self._rate_thresholds(self.recent)
        return self._score_thresholds(self.class_scores)

    def joint_thresholds(self, proposals: list[PseudoSegments], minutes: list[float]) -> Tensor:
        """(C,) thresholds for videos that are all known, from these videos alone. The running state is not used."""
        if self.options.select == "rate":
            return self._rate_thresholds([self._scores(*pair) for pair in zip(proposals, minutes, strict=True)])
        best = torch.stack([torch.zeros_like(self.class_scores), *map(self._best, proposals)])  # (videos + 1, C)
        return self._score_thresholds(best.sum(dim=0) / (best > 0).sum(dim=0).clamp(min=1))

    def _score_thresholds(self, class_scores: Tensor) -> Tensor:
        """(C,) thresholds of `fixed`, and of `per_class` for the mean scores (C,) of the classes."""
        thresholds = torch.full_like(class_scores, self.options.threshold)
        if self.options.select == "per_class":
            thresholds = thresholds * (class_scores / class_scores.max().clamp(min=1e-6))
        return thresholds

    def select(self, proposals: PseudoSegments, thresholds: Tensor) -> Tensor:
        """(N,) bool: the proposals that the student learns from."""
        scores = proposals.scores
        if self.options.select == "topk":
            return torch.arange(len(scores), device=scores.device) < self.options.topk
        if not len(scores):
            return torch.zeros_like(scores, dtype=torch.bool)
        return scores >= thresholds.to(scores)[proposals.logits.argmax(dim=-1)]

    def _best(self, proposals: PseudoSegments) -> Tensor:
        best = torch.zeros_like(self.class_scores)
        if len(proposals.scores):
            best.scatter_reduce_(0, proposals.logits.argmax(dim=-1).cpu(), proposals.scores.cpu(), reduce="amax")
        return best

    def _scores(self, proposals: PseudoSegments, minutes: float) -> _Scores:
        enough = proposals.scores >= self.options.rate_floor
        return proposals.scores[enough].cpu(), proposals.logits[enough].argmax(dim=-1).cpu(), minutes

    def _rate_thresholds(self, videos: list[_Scores]) -> Tensor:
        scores = torch.cat([NONE, *(scores for scores, _, _ in videos)])
        classes = torch.cat([NONE.long(), *(classes for _, classes, _ in videos)])
        minutes = sum(minutes for _, _, minutes in videos)
        return rate_thresholds(scores, classes, minutes, self.rates, floor=self.options.rate_floor)

    def state(self) -> State:
        """Numbers and tensors for exact resuming."""
        state: State = {"class_scores": self.class_scores}
        if self.options.select != "rate":
            return state
        return state | {
            "recent_scores": torch.cat([NONE, *(scores for scores, _, _ in self.recent)]),
            "recent_classes": torch.cat([NONE.long(), *(classes for _, classes, _ in self.recent)]),
            "recent_sizes": torch.tensor([len(scores) for scores, _, _ in self.recent], dtype=torch.long),
            "recent_minutes": torch.tensor([minutes for _, _, minutes in self.recent], dtype=torch.float64),
        }

    def load_state(self, state: State) -> None:
        """Restores a result of `state`."""
        self.class_scores = tensor_of(state, "class_scores")
        if self.options.select != "rate":
            return
        sizes, minutes = tensor_of(state, "recent_sizes").tolist(), tensor_of(state, "recent_minutes").tolist()
        scores, classes = (tensor_of(state, name).split(sizes) for name in ("recent_scores", "recent_classes"))
        self.recent = list(zip(scores, classes, minutes, strict=True))


_Scores = tuple[Tensor, Tensor, float]  # of one video: scores (N,) and classes (N,) of its proposals, and its minutes
NONE = torch.zeros(0)


def rate_thresholds(scores: Tensor, classes: Tensor, minutes: float, rates: Tensor, *, floor: float) -> Tensor:
    """Thresholds of the score (C,) at which the pseudo segments of a class are as frequent as its labeled events.

    Of class c the round(rates[c] * minutes) best proposals have at least its threshold, or fewer where the threshold
    would be below `floor`; infinite for none.

    Args:
        scores, classes: (N,) of all proposals of some videos; minutes: length of these videos.
        rates: (C,) labeled events per minute.
    """
    thresholds = torch.full((len(rates),), torch.inf, dtype=scores.dtype)
    for c, rate in enumerate(rates.tolist()):
        wanted = int(rate * minutes + 0.5)
        own = scores[classes == c].sort(descending=True).values
        if wanted:
            thresholds[c] = max(float(own[wanted - 1]), floor) if len(own) >= wanted else floor
    return thresholds


def minutes_of(video: VideoItem) -> float:
    """Length of a sample in minutes."""
    return video["feats"].shape[1] * video["feat_stride"] / video["fps"] / 60


def labeled_rates(labeled: TALDataset, num_classes: int) -> Tensor:
    """(C,) labeled events per minute of every class."""
    counts, minutes = torch.zeros(num_classes, dtype=torch.float64), 0.0
    for i, video in enumerate(labeled.videos):
        grid, (_, labels) = labeled.grid(i), labeled.events(i)
        counts += torch.bincount(torch.from_numpy(labels), minlength=num_classes)
        fps = video.fps if labeled.default_fps is None else labeled.default_fps
        assert fps is not None  # the data set has checked
        minutes += grid.length * grid.stride / fps / 60
    return counts / max(minutes, 1e-9)


def labeled_overlap(labeled: TALDataset) -> float:
    """The largest overlap that pseudo segments may have (`disjoint`), from the labeled events (`most_overlap`)."""
    return most_overlap([torch.from_numpy(labeled.events(i)[0]) for i in range(len(labeled))])


def most_overlap(videos: list[Tensor]) -> float:
    """The smallest share that at most 1 % of the events exceed, but at least .25; 1 (no limit) if that is not below 1.

    An event's share is its largest intersection with another event of its video, divided by the shorter of the two.

    Args:
        videos: events (N, 2) of each video.
    """
    shares = [NONE.double()]
    for events in videos:
        overlap = overlap_matrix(events.double(), events.double())
        shares.append(overlap.fill_diagonal_(0.0).amax(dim=1) if len(events) else NONE.double())
    falling = torch.cat(shares).sort(descending=True).values
    if not len(falling):
        return 1.0
    return min(max(float(falling[int(EXCEPTIONS * len(falling))]), LEAST_OVERLAP), 1.0)

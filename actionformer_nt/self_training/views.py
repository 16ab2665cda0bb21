"""Weak and strong views of a video: perturbed features, and the map of times from the video to the view."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from actionformer_nt.pseudo_sections import ViewSection
from libs.core.seeding import derive_seed
from libs.datasets.video import VideoItem

MIN_VISIBLE = 0.5  # smallest visible share of a segment that is kept in a view


@dataclass
class Geometry:
    """Map from grid times of a video to grid times of a view.

    Attributes:
        steps: piecewise linear maps, applied one after another. Each is given by knots (K,), rising, and their images
            (K,), which rise or fall.
    """

    steps: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, time: Tensor) -> Tensor:
        for knots, images in self.steps:
            time = _piecewise_linear(time, knots, images)
        return time

    @property
    def inverse(self) -> Geometry:
        """Map from grid times of the view to grid times of the video."""
        swapped = [(images, knots) for knots, images in reversed(self.steps)]
        return Geometry([(a.flip(0), b.flip(0)) if a[-1] < a[0] else (a, b) for a, b in swapped])

    @property
    def reverses(self) -> bool:
        """Whether time runs backwards in the view."""
        return sum(bool(images[-1] < images[0]) for _, images in self.steps) % 2 == 1

    def project(self, segments: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
        """Maps segments (N, 2) of the video into a view of `num_steps` steps.

        Returns:
            Segments (N', 2) clipped to the view, and a mask (N,) of the kept segments. A segment is kept if at
            least the share `MIN_VISIBLE` of its length is visible.
        """
        moved = self(segments.flatten()).view(-1, 2)
        moved = torch.stack([moved.min(dim=1).values, moved.max(dim=1).values], dim=1)  # `flip` reverses time
        cut = moved.clamp(-0.5, num_steps - 0.5)
        length = moved[:, 1] - moved[:, 0]
        kept = (cut[:, 1] - cut[:, 0] >= MIN_VISIBLE * length) & (cut[:, 1] > cut[:, 0])
        return cut[kept], kept


def view_of(video: VideoItem, kind: str, options: ViewSection, seed: int, iteration: int) -> tuple[VideoItem, Geometry]:
    """A random view of a video, and its geometry.

    Args:
        kind: name of the view, such as "weak". Seed, iteration, video, its repeat and kind determine the random
            numbers.

    Returns:
        The view, in which `clean` are the features before masking, dropout and noise.
    """
    generator = generator_of(video, kind, seed, iteration)
    channels = len(video["feats"])
    both = torch.cat([video["feats"], video["clean"]]) if "clean" in video else video["feats"]
    moved, geometry = move(both, options, generator)
    return {**video, "feats": perturb(moved[:channels], options, generator), "clean": moved[-channels:]}, geometry


def generator_of(video: VideoItem, kind: str, seed: int, iteration: int) -> torch.Generator:
    """Random numbers of a video in an iteration; `kind` tells uses apart."""
    repeat = video.get("repeat", 0)
    own = derive_seed(seed, iteration, video["video_id"], kind, *([repeat] if repeat else []))
    return torch.Generator().manual_seed(own)


def labeled_view(
    video: VideoItem, kind: str, options: ViewSection, seed: int, iteration: int, *, backwards: Tensor
) -> VideoItem:
    """A view of a labeled video (`view_of`), with its events mapped into the view (`Geometry.project`).

    Args:
        backwards: (C,) class that each class is when it is played backwards.
    """
    view, geometry = view_of(video, kind, options, seed, iteration)
    assert video["segments"] is not None and video["labels"] is not None
    segments, kept = geometry.project(video["segments"], view["feats"].shape[1])
    labels = video["labels"][kept]
    return {**view, "segments": segments, "labels": backwards[labels] if geometry.reverses else labels}


def make_view(feats: Tensor, options: ViewSection, generator: torch.Generator) -> tuple[Tensor, Geometry]:
    """A perturbed copy of features (C, T), and its geometry. All random numbers come from `generator`."""
    moved, geometry = move(feats, options, generator)
    return perturb(moved, options, generator), geometry


def move(feats: Tensor, options: ViewSection, generator: torch.Generator) -> tuple[Tensor, Geometry]:
    """The part of `make_view` that changes time: crop, shift, warp and flip."""
    geometry = Geometry()
    feats = _crop(feats, options.crop, geometry, generator)
    feats = _shift(feats, options.shift, geometry, generator)
    feats = _warp(feats, options.warp, geometry, generator)
    return _flip(feats, options.flip, geometry, generator), geometry


def perturb(feats: Tensor, options: ViewSection, generator: torch.Generator) -> Tensor:
    """The part of `make_view` that changes values: moved channels, masks, dropout and noise."""
    feats = _shift_channels(feats, options.channel_shift, generator)
    feats = _mask_snippets(feats, options.snippet_mask, options.mask_length, generator)
    if options.channel_dropout:
        keep = 1.0 - options.channel_dropout
        feats = feats * (torch.rand(len(feats), 1, generator=generator) < keep) / keep
    if options.noise:
        feats = feats + options.noise * feats.std() * torch.randn(feats.shape, generator=generator)
    return feats


def _linear(start: float, slope: float) -> tuple[Tensor, Tensor]:
    return torch.tensor([0.0, 1.0]), torch.tensor([start, start + slope])


def _piecewise_linear(x: Tensor, knots: Tensor, images: Tensor) -> Tensor:
    """Interpolates linearly between knots and extrapolates linearly beyond them."""
    knots, images = knots.to(x), images.to(x)
    cell = (torch.searchsorted(knots, x.contiguous()) - 1).clamp(0, len(knots) - 2)
    slope = (images[1:] - images[:-1]) / (knots[1:] - knots[:-1])
    return images[cell] + slope[cell] * (x - knots[cell])


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _crop(feats: Tensor, share: float, geometry: Geometry, generator: torch.Generator) -> Tensor:
    if not share:
        return feats
    steps = feats.shape[1]
    length = max(round(steps * (1 - _uniform(generator, 0, share))), 1)
    start = int(torch.randint(0, steps - length + 1, (), generator=generator))
    geometry.steps.append(_linear(-start, 1.0))
    return feats[:, start : start + length]


def _shift(feats: Tensor, largest: int, geometry: Geometry, generator: torch.Generator) -> Tensor:
    """Shifts in time; the gap is filled with copies of the first or last step."""
    if not largest:
        return feats
    shift = int(torch.randint(-largest, largest + 1, (), generator=generator))
    geometry.steps.append(_linear(shift, 1.0))
    index = (torch.arange(feats.shape[1]) - shift).clamp(0, feats.shape[1] - 1)
    return feats[:, index]


def _warp(feats: Tensor, strength: float, geometry: Geometry, generator: torch.Generator) -> Tensor:
    """Changes the speed along the video; both ends stay where they are."""
    steps = feats.shape[1]
    if not strength or steps < 8:
        return feats
    tempo = 1 + strength * (2 * torch.rand(6, generator=generator) - 1)  # speed in each of six equal parts
    images = torch.cat([torch.zeros(1), tempo.cumsum(0)])
    images = images / images[-1] * (steps - 1)
    knots = torch.linspace(0, steps - 1, 7)
    geometry.steps.append((knots, images))
    source = _piecewise_linear(torch.arange(steps, dtype=torch.float32), images, knots).clamp(0, steps - 1)
    low = source.floor().long().clamp(max=steps - 2)
    return torch.lerp(feats[:, low], feats[:, low + 1], (source - low)[None])


def _flip(feats: Tensor, probability: float, geometry: Geometry, generator: torch.Generator) -> Tensor:
    if not probability or _uniform(generator) >= probability:
        return feats
    geometry.steps.append(_linear(feats.shape[1] - 1.0, -1.0))
    return feats.flip(1)


def _shift_channels(feats: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Moves channels by one step, as temporal shift modules do; the gap is filled with zeros."""
    count = int(share * len(feats))
    if not count:
        return feats
    chosen = torch.randperm(len(feats), generator=generator)[: 2 * count]
    past, future = chosen[:count], chosen[count:]
    moved = feats.clone()
    moved[past] = F.pad(feats[past, 1:], (0, 1))
    moved[future] = F.pad(feats[future, :-1], (1, 0))
    return moved


def _mask_snippets(feats: Tensor, probability: float, length: int, generator: torch.Generator) -> Tensor:
    if not probability:
        return feats
    blocks = -(-feats.shape[1] // length)
    keep = (torch.rand(blocks, generator=generator) >= probability).float()
    return feats * F.interpolate(keep[None, None], scale_factor=length, mode="nearest")[0, :, : feats.shape[1]]

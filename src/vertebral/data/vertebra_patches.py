"""Patches around one vertebra each, painted from label maps: CT and guidance in, the vertebra out.

The guidance is a copy of the vertebra with the faults of a coarse network: moved, bent, blunt, without some of its
processes, with a piece of a neighbour.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional
from torch.utils.data import Dataset

from vertebral.anatomy import BY_VERSE_ID
from vertebral.config import GuidanceConfig, TrainConfig, VertebraeConfig
from vertebral.data.augment import blur, draw_pose, sample
from vertebral.data.body_cache import CachedBody
from vertebral.data.patches import Sample, window
from vertebral.data.synth import box_around, paint_body, pose_body
from vertebral.data.synthetic import seed_of, smooth_field, uniform
from vertebral.errors import ConfigError

# What one cut may take, and one leak add, as a share of the vertebra: a small one is not to vanish.
_MOST_CUT, _MOST_LEAKED = 0.35, 0.5


class VertebraPatches(Dataset[Sample]):
    """An endless series of (image (2, I, J, K) float32: CT and guidance, classes (I, J, K) uint8: 1 in the vertebra).

    Number n is a function of (config.seed, n) alone, whatever process draws it. A body is drawn by weight, then one of
    its vertebrae, each as often as the others; one that the body's border cuts is never drawn. Raises ConfigError for a
    body that shows no whole vertebra.
    """

    def __init__(self, bodies: list[CachedBody], config: TrainConfig, settings: VertebraeConfig) -> None:
        self._bodies = bodies
        self._config = config
        self._synthesis = settings.synthesis
        self._guidance = settings.guidance
        self._weights = torch.tensor([body.weight for body in bodies])
        self._vertebrae = [_whole_vertebrae(body) for body in bodies]

    def __getitem__(self, index: int) -> Sample:
        config, synthesis = self._config, self._synthesis
        generator = torch.Generator().manual_seed(seed_of(config.seed, index))
        which = int(torch.multinomial(self._weights, 1, generator=generator))
        body, vertebrae = self._bodies[which], self._vertebrae[which]
        verse_id, middle = vertebrae[int(torch.randint(0, len(vertebrae), (), generator=generator))]
        fine = config.model.preprocess.spacing_mm
        jitter_mm = self._guidance.centre_mm * (2 * torch.rand(3, generator=generator) - 1)
        pose_mm = draw_pose(config.patch, fine, generator, synthesis) + jitter_mm
        voxels = middle + pose_mm / synthesis.cache_spacing_mm
        box = box_around(voxels, body.labels.shape)
        hu, labels = paint_body(body, box, generator, synthesis)
        voxels = voxels - torch.tensor([part.start for part in box])
        image, ids, _ = pose_body(hu, labels, voxels, fine, generator, synthesis)
        own = ids == verse_id
        guidance = degraded(own, (ids > 0) & ~own, fine, self._guidance, generator)
        return torch.stack([window(image, config.model.preprocess), guidance]), own.to(torch.uint8)


def degraded(
    own: torch.Tensor, others: torch.Tensor, spacing_mm: float, config: GuidanceConfig, generator: torch.Generator
) -> torch.Tensor:
    """Return (I, J, K) float32 in [0, 1]: `own` (bool) as a coarse network might give it beside `others` (bool)."""
    fine = own.shape
    shape = [max(2, math.ceil(n * spacing_mm / config.grid_mm)) for n in fine]
    masks = torch.stack([own, others])[None].float()
    soft, near = functional.interpolate(masks, size=shape, mode="area")[0]
    grid_mm = config.grid_mm
    if not bool(own.any()):
        return torch.zeros(fine)
    for _ in range(int(torch.randint(0, config.cuts + 1, (), generator=generator))):
        # Axis 1 grows to the front: the rear half holds arch and processes.
        rows = (soft > 0.5).nonzero()
        rear = rows[rows[:, 1] <= rows[:, 1].float().median()] if len(rows) else rows
        less = soft * (1 - _ball(rear, soft.shape, config.cut_mm, grid_mm, generator))
        soft = less if float(less.sum()) > (1 - _MOST_CUT) * float(soft.sum()) else soft
    for _ in range(int(torch.randint(0, config.leaks + 1, (), generator=generator))):
        more = torch.maximum(soft, _leak(soft, near, config, generator))
        soft = more if float(more.sum()) < (1 + _MOST_LEAKED) * float(soft.sum()) else soft
    soft = sample(soft, _moved(soft.shape, config, generator), "bilinear", 0.0)
    sigma = uniform(generator, config.blur_mm) / grid_mm
    for axis in range(3):
        soft = blur(soft, sigma, axis)
    threshold, sharpness = uniform(generator, config.threshold), uniform(generator, config.sharpness)
    found = (0.5 + sharpness * (soft - threshold)).clamp(0, 1) * (soft > 0.02)
    return functional.interpolate(found[None, None], size=fine, mode="trilinear").reshape(fine)


def _leak(soft: torch.Tensor, near: torch.Tensor, config: GuidanceConfig, generator: torch.Generator) -> torch.Tensor:
    """A ball of a neighbour, or where none is near, and sometimes else, of whatever is at the vertebra's surface."""
    rows = (soft > 0.5).nonzero()
    candidates = (near > 0.5).nonzero()
    if len(rows) == 0:
        return torch.zeros_like(soft)
    if len(candidates):
        start = rows[int(torch.randint(0, len(rows), (), generator=generator))]
        distance_mm = (candidates - start).float().norm(dim=1) * config.grid_mm
        candidates = candidates[distance_mm <= config.leak_far_mm]
    anything = uniform(generator, (0, 1)) < 0.2
    if len(candidates) and not anything:
        return near * _ball(candidates, soft.shape, config.leak_mm, config.grid_mm, generator)
    small_mm = (config.leak_mm[0] / 2, sum(config.leak_mm) / 4)
    return _ball(rows, soft.shape, small_mm, config.grid_mm, generator)


def _ball(
    centres: torch.Tensor,
    shape: torch.Size,
    radius_mm: tuple[float, float],
    grid_mm: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """(I, J, K): 1 in a ball around one of `centres` (N, 3), soft over a voxel at its border; 0 where there is none."""
    if len(centres) == 0:
        return torch.zeros(shape)
    centre = centres[int(torch.randint(0, len(centres), (), generator=generator))]
    radius = uniform(generator, radius_mm) / grid_mm
    i, j, k = (((torch.arange(n) - c) ** 2).float() for n, c in zip(shape, centre.tolist(), strict=True))
    distance: torch.Tensor = (i[:, None, None] + j[None, :, None] + k[None, None, :]).sqrt()
    return (radius + 0.5 - distance).clamp(0, 1)


def _moved(shape: torch.Size, config: GuidanceConfig, generator: torch.Generator) -> torch.Tensor:
    """(I, J, K, 3): where each voxel of the coarse grid takes its value from, in voxels."""
    axes = [torch.arange(n, dtype=torch.float32) for n in shape]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    step = max(2, round(config.bend_step_mm / config.grid_mm))
    bend = torch.stack([smooth_field(shape, step, generator) for _ in range(3)], dim=-1)
    # A field of unit variance reaches twice its deviation.
    bend_mm = uniform(generator, (0, config.bend_mm)) / 2 * bend
    shift_mm = uniform(generator, (0, config.shift_mm)) * (2 * torch.rand(3, generator=generator) - 1)
    return points + (bend_mm + shift_mm) / config.grid_mm


def _whole_vertebrae(body: CachedBody) -> list[tuple[int, torch.Tensor]]:
    """VerSe id and middle (3,) of the box of each vertebra that the body's border does not cut, in voxels."""
    found = []
    for verse_id, box in _boxes(np.asarray(body.labels)).items():
        inside = all(s.start > 0 and s.stop < n for s, n in zip(box, body.labels.shape, strict=True))
        if inside and BY_VERSE_ID[verse_id].is_vertebra:
            middle = torch.tensor([(s.start + s.stop - 1) / 2 for s in box])
            found.append((verse_id, middle))
    if not found:
        raise ConfigError(f"{body.name}: shows no whole vertebra; leave it out of the sources")
    return found


def _boxes(labels: NDArray[np.uint8]) -> dict[int, tuple[slice, slice, slice]]:
    found = enumerate(ndimage.find_objects(labels), start=1)
    return {verse_id: box for verse_id, box in found if box is not None and verse_id in BY_VERSE_ID}

"""Training patches: a body, a place in it, a pose, a patient, a scanner; image and classes out."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from vertebral.anatomy import level_named
from vertebral.config import TrainConfig
from vertebral.data.augment import AIR_HU, draw_field_of_view, draw_pose, sample, scan
from vertebral.data.body_cache import UNKNOWN_HU, CachedBody
from vertebral.data.synthetic import breathe, draw_patient, paint, uniform
from vertebral.errors import ConfigError

Sample = tuple[torch.Tensor, torch.Tensor]


class PatchDataset(IterableDataset[Sample]):
    """An endless stream of (image (1, I, J, K) float32, classes (I, J, K) uint8), a function of seed and index alone.

    Patch number n is drawn with the seed (config.seed, n), and worker w of W takes the batches w, w + W, ... after
    `start`. So a loader gives the same batches whatever its workers, and a run that resumes at `start` sees what the
    uninterrupted one would have seen. Raises ConfigError for a body that shows no level.
    """

    def __init__(self, bodies: list[CachedBody], config: TrainConfig, start: int = 0) -> None:
        self._bodies = bodies
        self._config = config
        self._start = start
        self._weights = torch.tensor([body.weight for body in bodies])
        self._centres = [_spine_centres(body) for body in bodies]
        self._class_of = torch.zeros(256, dtype=torch.uint8)
        for index, name in enumerate(config.model.network.levels, start=1):
            self._class_of[level_named(name).verse_id] = index

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        size = self._config.batch
        for batch in itertools.count(first, step):
            for index in range(batch * size, (batch + 1) * size):
                yield self.patch(self._start + index)

    def patch(self, index: int) -> Sample:
        """Return patch number `index`."""
        config = self._config
        seed = int(np.random.SeedSequence([config.seed, index]).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        which = int(torch.multinomial(self._weights, 1, generator=generator))
        body, spacing = self._bodies[which], config.synthesis.cache_spacing_mm
        fine = config.model.preprocess.spacing_mm
        centre = self._draw_centre(which, generator)
        voxels = centre + draw_pose(config.patch, fine, generator, config.synthesis) / spacing
        shape = torch.tensor(body.labels.shape)
        # At least two voxels an axis, also where the patch lies beside the body.
        low = torch.minimum((voxels.amin((0, 1, 2)).floor().long() - 1).clamp(min=0), shape - 2)
        high = torch.minimum(voxels.amax((0, 1, 2)).ceil().long() + 2, shape)
        high = torch.maximum(high, low + 2)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        labels = torch.from_numpy(np.array(body.labels[box]))
        hu = self._paint(body, box, labels, generator)
        voxels = voxels - low
        shown = draw_field_of_view(config.patch, generator, config.synthesis)
        image = torch.full(config.patch, AIR_HU)
        image[shown] = scan(sample(hu, voxels, "bilinear", AIR_HU), fine, generator, config.synthesis)[shown]
        classes = torch.zeros(config.patch, dtype=torch.uint8)
        classes[shown] = self._class_of[sample(labels, voxels, "nearest", 0.0).round().int()][shown]
        return window(image, config)[None], classes

    def _paint(
        self, body: CachedBody, box: tuple[slice, ...], labels: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        tissue = torch.from_numpy(np.array(body.tissue[box]))
        synthesis = self._config.synthesis
        if any(synthesis.breathing_mm):
            tissue = breathe(tissue, round(uniform(generator, synthesis.breathing_mm) / synthesis.cache_spacing_mm))
        painted = paint(tissue, labels, draw_patient(generator, synthesis), generator)
        if body.hu is None:
            return painted
        real = torch.from_numpy(np.array(body.hu[box]))
        return torch.where(real != UNKNOWN_HU, real.float(), painted)

    def _draw_centre(self, which: int, generator: torch.Generator) -> torch.Tensor:
        """A voxel of the cached body: near the spine mostly, else anywhere."""
        centres = self._centres[which]
        shape = torch.tensor(self._bodies[which].labels.shape, dtype=torch.float32)
        if uniform(generator, (0, 1)) >= self._config.synthesis.spine_centred:
            return torch.rand(3, generator=generator) * shape
        spacing = self._config.synthesis.cache_spacing_mm
        chosen = centres[int(torch.randint(0, len(centres), (), generator=generator))]
        jitter_mm = torch.tensor([35.0, 35.0, 70.0]) * (2 * torch.rand(3, generator=generator) - 1)
        return chosen + jitter_mm / spacing


def window(hu: torch.Tensor, config: TrainConfig) -> torch.Tensor:
    """Clip and scale HU as `preprocess.prepare` does."""
    settings = config.model.preprocess
    low, high = settings.window_hu
    clipped = hu.clamp(low, high)
    if settings.scaling == "unit":
        return (clipped - low) / (high - low)
    return (clipped - settings.mean_hu) / settings.std_hu


def _spine_centres(body: CachedBody) -> torch.Tensor:
    """(N, 3) voxel centroids of the levels of a body."""
    labels = np.asarray(body.labels)
    centres = [_centre(labels, int(v)) for v in np.unique(labels) if v]
    if not centres:
        raise ConfigError(f"{body.name}: shows no vertebra; leave it out of the sources")
    return torch.tensor(np.array(centres), dtype=torch.float32)


def _centre(labels: NDArray[np.uint8], value: int) -> NDArray[np.float64]:
    voxels = 2 * np.argwhere(labels[::2, ::2, ::2] == value)
    return np.asarray((voxels if len(voxels) else np.argwhere(labels == value)).mean(0))

"""Patches painted from label maps: draw a body, a place in it, a pose, a patient and a scan."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from vertebral.core.errors import ConfigError
from vertebral.data.patches.config import PatchConfig
from vertebral.data.patches.network_input import Patch, class_of_verse_id, window
from vertebral.data.synthesis.body_cache import CachedBody
from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.pose import draw_pose
from vertebral.data.synthesis.random_draws import seed_of, uniform
from vertebral.data.synthesis.synthetic_ct import box_around, paint_body, pose_body


class SyntheticPatches(Dataset[Patch]):
    """An endless series of (image (1, I, J, K) float32, classes (I, J, K) uint8).

    Patch n depends only on (config.seed, n), whichever process draws it. Raises ConfigError if a body shows no level.
    """

    def __init__(self, bodies: list[CachedBody], config: PatchConfig, synthesis: SynthesisConfig) -> None:
        self._bodies = bodies
        self._config = config
        self._synthesis = synthesis
        self._weights = torch.tensor([body.weight for body in bodies])
        self._centres = [_spine_centres(body) for body in bodies]
        self._class_of = class_of_verse_id(config.model.network.levels)

    def __getitem__(self, index: int) -> Patch:
        config = self._config
        generator = torch.Generator().manual_seed(seed_of(config.seed, index))
        which = int(torch.multinomial(self._weights, 1, generator=generator))
        body, spacing = self._bodies[which], self._synthesis.cache_spacing_mm
        fine = config.model.preprocess.spacing_mm
        centre = self._draw_centre(which, generator)
        voxels = centre + draw_pose(config.patch, fine, generator, self._synthesis) / spacing
        box = box_around(voxels, body.labels.shape)
        hu, labels = paint_body(body, box, generator, self._synthesis)
        voxels = voxels - torch.tensor([part.start for part in box])
        image, seen, _ = pose_body(hu, labels, voxels, fine, generator, self._synthesis)
        return window(image, config.model.preprocess)[None], self._class_of[seen.int()]

    def _draw_centre(self, which: int, generator: torch.Generator) -> torch.Tensor:
        """Return a voxel of the cached body: usually near the spine, otherwise anywhere."""
        centres = self._centres[which]
        shape = torch.tensor(self._bodies[which].labels.shape, dtype=torch.float32)
        if uniform(generator, (0, 1)) >= self._synthesis.spine_centred:
            return torch.rand(3, generator=generator) * shape
        spacing = self._synthesis.cache_spacing_mm
        chosen = centres[int(torch.randint(0, len(centres), (), generator=generator))]
        jitter_mm = torch.tensor([35.0, 35.0, 70.0]) * (2 * torch.rand(3, generator=generator) - 1)
        return chosen + jitter_mm / spacing


def _spine_centres(body: CachedBody) -> torch.Tensor:
    """Return (N, 3) voxel centroids of the levels of a body."""
    labels = np.asarray(body.labels)
    centres = [_centre(labels, int(v)) for v in np.unique(labels) if v]
    if not centres:
        raise ConfigError(f"{body.name}: contains no vertebra; leave it out of the sources")
    return torch.tensor(np.array(centres), dtype=torch.float32)


def _centre(labels: NDArray[np.uint8], value: int) -> NDArray[np.float64]:
    voxels = 2 * np.argwhere(labels[::2, ::2, ::2] == value)
    return np.asarray((voxels if len(voxels) else np.argwhere(labels == value)).mean(0))

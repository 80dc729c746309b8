"""Patches around one vertebra each, painted from label maps: the image is a CT with a mark in the middle."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.utils.data import Dataset

from vertebral.core.anatomy import BY_VERSE_ID
from vertebral.core.errors import ConfigError
from vertebral.data.patches.config import PatchConfig, VertebraeConfig
from vertebral.data.patches.network_input import Patch, window
from vertebral.data.synthesis.body_cache import CachedBody
from vertebral.data.synthesis.pose import draw_pose
from vertebral.data.synthesis.random_draws import seed_of
from vertebral.data.synthesis.synthetic_ct import box_around, paint_body, pose_body
from vertebral.stages.preprocess import centre_mark

# The centre of a vertebra of this volume has an error of `centre_error_mm`.
_USUAL_ML = 40.0


class VertebraPatches(Dataset[Patch]):
    """An endless series of (image (2, I, J, K) float32: CT and mark, classes (I, J, K) uint8: 1 in the vertebra).

    Patch n depends only on (config.seed, n), whichever process draws it. A body is drawn by weight, then one of its
    vertebrae, weighted by size; one that the border of the body cuts off is never drawn. The patch is centred on the
    centroid of the vertebra, with the error of a coarse network. Raises ConfigError if a body shows no whole vertebra.
    """

    def __init__(self, bodies: list[CachedBody], config: PatchConfig, settings: VertebraeConfig) -> None:
        self._bodies = bodies
        self._config = config
        self._settings = settings
        self._weights = torch.tensor([body.weight for body in bodies])
        self._vertebrae = [_whole_vertebrae(body, settings.synthesis.cache_spacing_mm) for body in bodies]
        self._draws = [
            torch.tensor([volume_ml for _, _, volume_ml in vertebrae]) ** -settings.smallness
            for vertebrae in self._vertebrae
        ]
        self._mark = torch.from_numpy(centre_mark(config.patch, config.model.preprocess.spacing_mm))

    def __getitem__(self, index: int) -> Patch:
        config, synthesis = self._config, self._settings.synthesis
        generator = torch.Generator().manual_seed(seed_of(config.seed, index))
        which = int(torch.multinomial(self._weights, 1, generator=generator))
        body, vertebrae = self._bodies[which], self._vertebrae[which]
        verse_id, centroid, volume_ml = vertebrae[int(torch.multinomial(self._draws[which], 1, generator=generator))]
        fine = config.model.preprocess.spacing_mm
        error = torch.randn(3, generator=generator).clamp(-2, 2) * min(1.0, (volume_ml / _USUAL_ML) ** (1 / 3))
        pose_mm = draw_pose(config.patch, fine, generator, synthesis) + self._settings.centre_error_mm * error
        voxels = centroid + pose_mm / synthesis.cache_spacing_mm
        box = box_around(voxels, body.labels.shape)
        hu, labels = paint_body(body, box, generator, synthesis)
        voxels = voxels - torch.tensor([part.start for part in box])
        image, ids, _ = pose_body(hu, labels, voxels, fine, generator, synthesis)
        return torch.stack([window(image, config.model.preprocess), self._mark]), (ids == verse_id).to(torch.uint8)


def _whole_vertebrae(body: CachedBody, spacing_mm: float) -> list[tuple[int, torch.Tensor, float]]:
    """Return VerSe id, centroid (3,) in voxels and volume in ml of each vertebra that the border does not cut off."""
    found = []
    labels = np.asarray(body.labels)
    for verse_id, box in _boxes(labels).items():
        inside = all(s.start > 0 and s.stop < n for s, n in zip(box, labels.shape, strict=True))
        if inside and BY_VERSE_ID[verse_id].is_vertebra:
            voxels = np.argwhere(labels[box] == verse_id)
            centroid = torch.tensor(voxels.mean(0) + [s.start for s in box], dtype=torch.float32)
            found.append((verse_id, centroid, len(voxels) * spacing_mm**3 / 1000))
    if not found:
        raise ConfigError(f"{body.name}: contains no whole vertebra; leave it out of the sources")
    return found


def _boxes(labels: NDArray[np.uint8]) -> dict[int, tuple[slice, slice, slice]]:
    found = enumerate(ndimage.find_objects(labels), start=1)
    return {verse_id: box for verse_id, box in found if box is not None and verse_id in BY_VERSE_ID}

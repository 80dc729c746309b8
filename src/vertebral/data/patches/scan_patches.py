"""Patches of real scans: draw a scan, a place in it, a pose and a change of image."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from vertebral.core.errors import ConfigError
from vertebral.core.volume import Array
from vertebral.data.patches.augmentation import Shape, change_look, draw_knots, sampling_grid
from vertebral.data.patches.config import PatchConfig
from vertebral.data.patches.network_input import Patch, class_of_verse_id, window
from vertebral.data.synthesis.random_draws import happens, seed_of
from vertebral.data.verse.prepared_set import PreparedScan

# 0.29 * 100 is a little less than 29 in floating point.
_ROUNDING = 1e-9


class ScanPatches(Dataset[Patch]):
    """An endless series of (image (1, I, J, K) float32, classes (I, J, K) uint8), cut from real scans.

    Patch n depends only on (config.seed, n) and the scans, whichever process cuts it. An epoch has `per_epoch` patches
    and shows each scan exactly `patches_per_scan` times, in a new order. With `fixed`, order and places are the same in
    every epoch and for every seed, and nothing is augmented: for a validation loss.

    The share `bone_centred` of the patches is centred on a voxel of bone: exactly, to within one patch, in each epoch
    and in the long run for each scan. The others are anywhere. Along an axis where the scan is larger than the patch,
    the patch is inside it, so one centred near the border is moved in as far as needed; where the scan is smaller, the
    patch holds all of it with air around it, as in inference. Raises ConfigError if there is no scan.
    """

    def __init__(self, scans: Sequence[PreparedScan], config: PatchConfig, *, fixed: bool = False) -> None:
        if config.data.kind != "scans":
            raise ConfigError(f"data.kind {config.data.kind}: patches of prepared scans need data.kind scans")
        if not scans:
            raise ConfigError("no scans to cut patches from: choose another fold, or prepare more scans")
        self._scans = tuple(scans)
        self._config = config
        self._data = config.data
        self._augment = None if fixed else config.data.augment
        self._fixed = fixed
        self._class_of = class_of_verse_id(config.model.network.levels).numpy()

    @property
    def per_epoch(self) -> int:
        """Number of patches in an epoch."""
        return len(self._scans) * self._data.patches_per_scan

    def __len__(self) -> int:
        return self.per_epoch

    def __getitem__(self, index: int) -> Patch:
        epoch, position = (0, index % self.per_epoch) if self._fixed else divmod(index, self.per_epoch)
        words = [position] if self._fixed else [self._config.seed, index]
        generator = torch.Generator().manual_seed(seed_of(*words))
        which, turn = divmod(self._shuffled(epoch, position), self._data.patches_per_scan)
        scan = self._scans[which]
        start = self._draw_start(scan, self._is_bone_centred(which, epoch, turn), generator)
        hu, labels = self._cut(scan, start, generator)
        classes = torch.from_numpy(self._class_of.take(labels.numpy()))
        return window(hu, self._config.model.preprocess).contiguous()[None], classes

    def _shuffled(self, epoch: int, position: int) -> int:
        """Return the number of the patch at `position` of an epoch: patch t of scan s is s * patches_per_scan + t."""
        if self._fixed:
            return position
        return int(np.random.default_rng([self._config.seed, epoch]).permutation(self.per_epoch)[position])

    def _is_bone_centred(self, which: int, epoch: int, turn: int) -> bool:
        """Spread bone-centred patches evenly: n patches of a scan hold n times the share, each scan a little ahead.

        The floors of x, x + 1/s, ..., x + (s-1)/s add up to the floor of s x (Hermite), so an epoch is exact too.
        """
        past = epoch * self._data.patches_per_scan + turn
        ahead = which / len(self._scans) + _ROUNDING
        before, after = (math.floor(n * self._data.bone_centred + ahead) for n in (past, past + 1))
        return after > before

    def _draw_start(self, scan: PreparedScan, bone_centred: bool, generator: torch.Generator) -> list[int]:
        """Return the voxel of the scan at which the patch starts; negative where the scan is smaller."""
        spare = [n - size for n, size in zip(scan.shape, self._config.patch, strict=True)]
        if not bone_centred:
            return [int(torch.randint(min(0, n), max(0, n) + 1, (), generator=generator)) for n in spare]
        voxel = scan.bone[int(torch.randint(0, len(scan.bone), (), generator=generator))].tolist()
        return [
            min(max(at - size // 2, min(0, n)), max(0, n))
            for at, size, n in zip(voxel, self._config.patch, spare, strict=True)
        ]

    def _cut(
        self, scan: PreparedScan, start: list[int], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return HU (I, J, K) float32 within the window and labels (I, J, K) uint8, augmented."""
        patch, settings = self._config.patch, self._config.model.preprocess
        air = settings.window_hu[0]
        knots = draw_knots(patch, settings.spacing_mm, generator, self._augment) if self._augment else None
        if knots is None:
            hu, labels = _plain(scan.ct, patch, start, air), _plain(scan.labels, patch, start, 0)
        else:
            centre = torch.tensor(start) + (torch.tensor(patch) - 1) / 2
            hu, labels = _posed(scan, patch, centre + knots, air)
        if self._augment is None:
            return hu, labels
        if happens(generator, self._augment.mirror_probability):
            # The first axis runs from left to right, and no label has a side.
            hu, labels = hu.flip(0), labels.flip(0)
        return change_look(hu, labels, settings.spacing_mm, settings.window_hu, generator, self._augment), labels


def _plain(array: Array, patch: Shape, start: Sequence[int], outside: float) -> torch.Tensor:
    """Cut `patch` out of an array (I, J, K) at `start`; float32, or uint8 if the array is. Only that part is read."""
    low = [max(0, at) for at in start]
    high = [min(n, at + size) for n, at, size in zip(array.shape, start, patch, strict=True)]
    found = torch.from_numpy(np.array(array[tuple(map(slice, low, high))]))
    dtype = found.dtype if found.dtype == torch.uint8 else torch.float32
    if found.shape == patch:
        return found.to(dtype)
    result = torch.full(patch, outside, dtype=dtype)
    result[tuple(slice(a - at, b - at) for a, b, at in zip(low, high, start, strict=True))] = found
    return result


def _posed(scan: PreparedScan, patch: Shape, knots: torch.Tensor, air: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return HU float32 and labels uint8 at `knots` (A, B, C, 3), voxels of the scan; air and background outside.

    Only the box that the knots span is read: the map is linear between knots, so it never leaves that box.
    """
    size = torch.tensor(scan.shape)
    low = knots.amin((0, 1, 2)).floor().long().clamp(min=0).minimum(size - 1)
    high = (knots.amax((0, 1, 2)).floor().long() + 2).clamp(max=size).maximum(low + 1)
    box = tuple(map(slice, low.tolist(), high.tolist()))
    # The coordinates of `grid_sample`: -1 to 1 from edge to edge of the box, the last axis first.
    grid = sampling_grid(((2 * (knots - low) + 1) / (high - low) - 1).flip(-1), patch)[None]
    ct = torch.from_numpy(np.array(scan.ct[box], np.float32)).sub_(air)
    labels = torch.from_numpy(np.array(scan.labels[box], np.float32))
    hu = functional.grid_sample(ct[None, None], grid, mode="bilinear", align_corners=False)[0, 0].add_(air)
    nearest = functional.grid_sample(labels[None, None], grid, mode="nearest", align_corners=False)[0, 0]
    return hu, nearest.to(torch.uint8)

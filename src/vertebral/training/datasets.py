"""The training patches and validation scans of a run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader, Dataset, Sampler

from vertebral.core.errors import ConfigError
from vertebral.data.patches.config import ScansConfig, SyntheticConfig, VertebraeConfig
from vertebral.data.patches.network_input import Patch
from vertebral.data.patches.scan_patches import ScanPatches
from vertebral.data.patches.synthetic_patches import SyntheticPatches
from vertebral.data.patches.vertebra_patches import VertebraPatches
from vertebral.data.synthesis.body_cache import cache_bodies, find_recipes
from vertebral.data.verse.prepared_set import PreparedScan, open_prepared
from vertebral.training.config import TrainConfig


@dataclass(frozen=True)
class Datasets:
    """Training patches, and what to validate on.

    `per_pass` patches show every scan equally often; it is None for an endless series. `validation` holds the scans of
    the fold, `fixed` the `fixed_count` patches for the validation loss.
    """

    patches: Dataset[Patch]
    per_pass: int | None
    validation: list[PreparedScan]
    fixed: Dataset[Patch] | None
    fixed_count: int
    catalog_sha256: str | None


def open_datasets(config: TrainConfig, data: Path, bodies: Path, progress: Callable[[int, int, str], None]) -> Datasets:
    """Open the datasets of `config` in the folder `data`; bodies for synthesis are cached in `bodies`.

    Raises ConfigError if `data` does not hold what the config needs.
    """
    if isinstance(config.data, ScansConfig):
        return _scans(config, config.data, data)
    return _synthetic(config, config.data, data, bodies, progress)


def _synthetic(
    config: TrainConfig,
    settings: SyntheticConfig | VertebraeConfig,
    data: Path,
    bodies: Path,
    progress: Callable[[int, int, str], None],
) -> Datasets:
    recipes = find_recipes(data, settings.sources)
    cached = cache_bodies(
        recipes,
        settings.synthesis.cache_spacing_mm,
        bodies,
        lambda done, name: progress(done, len(recipes), f"body {done + 1} of {len(recipes)}: {name}"),
        crop_margin_mm=settings.crop_margin_mm if isinstance(settings, VertebraeConfig) else None,
    )
    patches: Dataset[Patch]
    if isinstance(settings, VertebraeConfig):
        patches = VertebraPatches(cached, config, settings)
    else:
        patches = SyntheticPatches(cached, config, settings.synthesis)
    return Datasets(patches, None, [], None, 0, None)


def _scans(config: TrainConfig, settings: ScansConfig, data: Path) -> Datasets:
    prepared = open_prepared(data)
    prepared.check(config.model.preprocess)
    training, validation = prepared.fold(settings.fold)
    if not training:
        raise ConfigError(f"{data}: fold {settings.fold} has no training scans; prepare more scans or split again")
    patches = ScanPatches(training, config)
    fixed = ScanPatches(validation, config, fixed=True) if validation else None
    count = fixed.per_epoch if fixed else 0
    return Datasets(patches, patches.per_epoch, validation, fixed, count, prepared.catalog_sha256)


class BatchSampler(Sampler[list[int]]):
    """Batches `first` to `last` (exclusive) of an endless series of patches, for device `rank` of `world`.

    Batch n of all devices together starts at patch n * batch * world. So no two devices see the same patch, and
    together they see what one device with `world` times the batch would see.
    """

    def __init__(self, first: int, last: int, batch: int, rank: int = 0, world: int = 1) -> None:
        self._batches = range(first, last)
        self._batch = batch
        self._rank = rank
        self._world = world

    def __iter__(self) -> Iterator[list[int]]:
        for n in self._batches:
            start = (n * self._world + self._rank) * self._batch
            yield list(range(start, start + self._batch))

    def __len__(self) -> int:
        return len(self._batches)


def load_batches(patches: Dataset[Patch], sampler: BatchSampler, workers: int, pin: bool) -> DataLoader[Patch]:
    """Load the batches of `sampler` in its order, whatever the number of `workers`."""
    return DataLoader(
        patches,
        batch_sampler=sampler,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )

"""Convert the values of a file to HU (int16 if all are whole, else float32), and check that they are HU."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vertebral.core.errors import ReadError
from vertebral.core.volume import Array

AIR_HU = -1024
PADDING_HU = -32768
"""Marks voxels that a format declares as outside the image; `to_hounsfield` sets all padding to air."""

_MOST_HU = 32767
_SLAB_VOXELS = 1 << 22
_SAMPLE_PLANES = 48


def rescale(values: Array, slope: float, intercept: float) -> Array:
    """Return slope * values + intercept as float32, or `values` themselves for slope 1 and intercept 0."""
    if slope == 1 and intercept == 0:
        return values
    result = np.empty_like(values, dtype=np.float32)
    for slab in _slabs(values):
        result[slab] = values[slab].astype(np.float64) * slope + intercept
    return result


def to_hounsfield(values: Array) -> tuple[Array, tuple[str, ...]]:
    """Return `values` (I, J, K) as int16 HU if all are whole, else as float32 HU, and notes for the user.

    Values below -1024 are padding and become -1024. Raises ReadError if a value is not finite or above 32767, or if the
    values as a whole cannot be HU. May change `values` in place.
    """
    require_finite(values)
    greatest = values.max()
    if greatest > _MOST_HU:
        raise ReadError(
            f"the highest value is {greatest:g}, above {_MOST_HU}, so this is not in HU: export the CT in HU"
        )
    target = np.dtype(np.int16 if is_whole(values) else np.float32)
    array = values if values.dtype == target and values.flags.writeable else np.empty_like(values, dtype=target)
    padding = 0
    may_be_low = np.dtype(values.dtype).kind != "u" and values.min() < AIR_HU
    for slab in _slabs(values):
        piece = values[slab]
        if may_be_low:
            padding += int(np.count_nonzero(piece < AIR_HU))
            piece = np.maximum(piece, AIR_HU)
        array[slab] = piece
    notes = check_hounsfield(array)
    if padding:
        share = 100 * padding / array.size
        notes = (f"{share:.2g} % of the voxels ({padding}) were below {AIR_HU} HU and were set to {AIR_HU}", *notes)
    return array, notes


def to_labels(values: Array) -> Array:
    """Return a label map (I, J, K) as uint8, or as uint16 if a label is above 255.

    Raises ReadError if a value is not finite, not whole, below 0 or above 65535.
    """
    require_finite(values)
    least, greatest = values.min(), values.max()
    if least < 0 or greatest > np.iinfo(np.uint16).max:
        raise ReadError(f"values from {least:g} to {greatest:g}: a label map needs whole numbers from 0 to 65535")
    if not is_whole(values):
        raise ReadError("some values are not whole numbers: give a label map, not an image or a probability map")
    return values.astype(np.uint8 if greatest <= np.iinfo(np.uint8).max else np.uint16)


def require_finite(values: Array) -> None:
    """Raise ReadError if `values` is empty or contains NaN or infinity."""
    if values.size == 0:
        raise ReadError("the image has no voxels: export it again")
    if values.dtype.kind != "f":
        return
    bad = sum(values[slab].size - int(np.count_nonzero(np.isfinite(values[slab]))) for slab in _slabs(values))
    if bad:
        raise ReadError(f"{bad} of {values.size} voxels are NaN or infinite: replace them with -1024 HU and save again")


def is_whole(values: Array) -> bool:
    """Return True if every value (all must be finite) is a whole number."""
    if values.dtype.kind != "f":
        return True
    return all(bool((values[slab] == np.rint(values[slab])).all()) for slab in _slabs(values))


def _slabs(array: Array) -> Iterator[tuple[slice, ...]]:
    """Divide `array` along its slowest axis into small contiguous pieces."""
    axis = int(np.argmax(np.abs(array.strides)))
    step = max(1, _SLAB_VOXELS * array.shape[axis] // array.size)
    for start in range(0, array.shape[axis], step):
        yield (*[slice(None)] * axis, slice(start, start + step))


@dataclass(frozen=True)
class _Sample:
    """Statistics of evenly spaced planes. `values` are the informative ones: neither 0 nor padding."""

    values: NDArray[Any]
    values_share: float
    flat_share: float
    least: float
    greatest: float

    def share(self, low: float, high: float) -> float:
        """Share of `values` within [low, high]."""
        return float(np.mean((self.values >= low) & (self.values <= high)))


def check_hounsfield(array: Array) -> tuple[str, ...]:
    """Raise ReadError if `array` (I, J, K) cannot be a CT in HU; return notes if it is an unusual one.

    A CT has fat or air (below -50), soft tissue (about 0 to 100) and bone (above 150). Fewer than a fifth of its values
    are near 1000 HU, unless the intercept of -1024 was not applied. An image without fat or air is accepted only if it
    shows bone alone (0 elsewhere). An MR with negative values can pass: values alone cannot exclude it.
    """
    sample = _sample(array)
    if sample.values.size == 0:
        raise ReadError("all voxels are 0 or padding: the image is empty; export it again")
    if sample.flat_share > 0.6 and sample.least >= 0:
        count = np.unique(sample.values).size
        found = f"{count} distinct values up to {sample.greatest:g} in flat regions"
        raise ReadError(f"a label map, not a CT ({found}): give the CT itself")
    without_air = sample.share(AIR_HU, -50) < 0.005
    if sample.share(850, 1250) > 0.2 and (without_air or sample.share(-200, 300) < 0.5):
        raise ReadError(
            f"{sample.share(850, 1250):.0%} of the values are around 1000: either the rescale intercept (about -1024) "
            "was not applied or this is not a CT; convert it again so that air is -1000 and water 0"
        )
    if without_air:
        return _check_bone_only(sample)
    _check_whole_ct(sample)
    return ()


def _check_whole_ct(sample: _Sample) -> None:
    if sample.greatest < 150:
        raise ReadError(f"no bone: the highest value is {sample.greatest:g}, bone is above 150 HU; export the CT in HU")
    if (soft := sample.share(-200, 300)) < 0.05:
        raise ReadError(
            f"only {soft:.1%} of the values are in the range of soft tissue (-200 to 300 HU), so this is not in HU; "
            "was the rescale intercept applied twice?"
        )
    if (high := float(np.percentile(sample.values, 99))) > 3500:
        raise ReadError(f"1 % of the values are above {high:g}, so this is not in HU; give a CT in HU")


def _check_bone_only(sample: _Sample) -> tuple[str, ...]:
    """Accept an image of bone alone, with a note: 0 outside, cancellous to cortical HU inside."""
    between = f"values from {sample.least:g} to {sample.greatest:g}"
    if sample.greatest <= 255:
        raise ReadError(f"{between}: a rescaled image (0-1, 0-255) or a label map, not HU; export the CT unchanged")
    median, high = (float(value) for value in np.percentile(sample.values, (50, 99)))
    if sample.values_share > 0.5 or not 100 <= median <= 900 or not 450 <= high <= 3500 or high < 1.8 * median:
        raise ReadError(f"{between}, almost none below -50: not a CT in HU (an MR or a rescaled image?); give the CT")
    return ("no fat or air in the image: read as a CT that was set to 0 outside bone",)


def _sample(array: Array) -> _Sample:
    axis = int(np.argmax(array.shape))
    planes = np.moveaxis(array, axis, 0)[:: -(-array.shape[axis] // _SAMPLE_PLANES)]
    informative = (planes != 0) & (planes > AIR_HU)
    pairs = informative[:, 1:] & informative[:, :-1]
    equal = (planes[:, 1:] == planes[:, :-1])[pairs]
    values = planes[informative]
    return _Sample(
        values=values,
        values_share=values.size / planes.size,
        flat_share=float(equal.mean()) if equal.size else 0.0,
        least=float(array.min()),
        greatest=float(array.max()),
    )

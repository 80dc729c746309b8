"""DICOM Segmentation: one segment per level, on the planes of the source series."""

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from vertebral.core.anatomy import BY_VERSE_ID, Level, sort_levels
from vertebral.core.errors import InputError
from vertebral.core.volume import Volume
from vertebral.io.dicom_export.codes import ANATOMICAL_STRUCTURE, level_code
from vertebral.io.dicom_export.identity import NAME, Maker, algorithm, equipment, quiet, series_arguments
from vertebral.io.dicom_export.source import SourceSeries, aligned


def levels_in(labels: Volume) -> tuple[Level, ...]:
    """Return the levels of a label map with VerSe ids, from head to tail. Raises InputError for other ids, or none."""
    ids = np.unique(labels.array).tolist()
    unknown = [value for value in ids if value and value not in BY_VERSE_ID]
    if unknown:
        raise InputError(
            f"the label map contains {', '.join(map(str, unknown))}, not VerSe ids: convert it with vertebral relabel"
        )
    levels = sort_levels(BY_VERSE_ID[value] for value in ids if value)
    if not levels:
        raise InputError("the label map contains no vertebra: there is nothing to export as DICOM")
    return levels


def make_seg(labels: Volume, source: SourceSeries, maker: Maker) -> Dataset:
    """Return a binary SEG without empty frames; segment n is the n-th level from head to tail.

    `labels` is (I, J, K) with VerSe ids, on the voxels of `source` (axes in any order). Segments have SNOMED CT codes,
    recommended colours, and frames that reference their source images. Raises GeometryError if the voxels differ from
    those of `source`, InputError if there is no level.
    """
    levels = levels_in(labels)
    planes = _segment_numbers(aligned(labels, source).array, levels)
    frames = [slice_.frame for slice_ in source.slices if slice_.frame is not None]
    if frames:  # the frames of an enhanced file can be in another order than the stack
        planes = planes[np.argsort(frames)]
    with quiet():
        seg = hd.seg.Segmentation(
            source_images=list(source.headers),
            pixel_array=planes,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_descriptions(levels, maker),
            content_label="VERTEBRAE",
            content_description="Vertebrae, one segment each",
            content_creator_name=f"{NAME}^",
            content_qualification=hd.ContentQualificationValues.RESEARCH,
            omit_empty_frames=True,
            **series_arguments("SEG"),
            **equipment(maker),
        )
    # The standard requires it with a frame of reference.
    seg.PositionReferenceIndicator = source.first.get("PositionReferenceIndicator")
    return seg


def _segment_numbers(array: NDArray[np.integer], levels: Sequence[Level]) -> NDArray[np.uint8]:
    """Return (slices, rows, columns) with 1, 2, ... in place of VerSe ids."""
    table = np.zeros(256, np.uint8)
    for number, level in enumerate(levels, start=1):
        table[level.verse_id] = number
    return np.ascontiguousarray(table[array].transpose(2, 1, 0))


def _descriptions(levels: Sequence[Level], maker: Maker) -> list[hd.seg.SegmentDescription]:
    return [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=level.name,
            segmented_property_category=ANATOMICAL_STRUCTURE,
            segmented_property_type=level_code(level),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm(maker),
            tracking_uid=hd.UID(),
            tracking_id=level.name,
            display_color=hd.color.CIELabColor.from_rgb(*level.rgb),
        )
        for number, level in enumerate(levels, start=1)
    ]

"""The choices that the metrics leave open: each policy has a name, a default and a sentence in the output."""

from dataclasses import dataclass

from vertebral.core.label_schemes import check_scheme

TOLERANCES_MM = (1, 2, 3)
HIT_MM = 20.0
MATCH_IOU = 0.5
# A predicted vertebra matches the reference vertebra that contains most of it, if that is at least this share of it.
LEAST_SHARED = 0.1


@dataclass(frozen=True)
class Settings:
    """The policies of an evaluation. Raises ConfigError for an unknown scheme.

    `resample`: resample predictions on another grid to that of the reference (nearest voxel) instead of refusing them.
    `ignore_outside_reference`: leave out predicted vertebrae above or below all reference vertebrae.
    `perfect_when_both_empty`: Dice 1 instead of no score if neither map has a vertebra.
    """

    scheme: str = "verse"
    reference_scheme: str = "verse"
    resample: bool = False
    ignore_outside_reference: bool = False
    perfect_when_both_empty: bool = False

    def __post_init__(self) -> None:
        check_scheme(self.scheme)
        check_scheme(self.reference_scheme)


def policies(settings: Settings) -> dict[str, str]:
    """Return each policy in a sentence, for the report."""
    outside = (
        "left out: predicted vertebrae above or below the whole reference that overlap it by less than a tenth"
        if settings.ignore_outside_reference
        else "counted as false positives, even if the reference does not label partly visible vertebrae"
    )
    return {
        "grid": "predictions on another grid: resampled to that of the reference, nearest voxel"
        if settings.resample
        else "predictions on another grid: refused; the order and direction of the axes do not matter",
        "structures": "vertebrae C1-L6 and T13; sacrum, coccyx and everything else are left out of both maps",
        "missing vertebra": "Dice and surface share 0; no distances: HD95 and ASSD are means over the vertebrae "
        "found, and a second HD95 takes the diagonal of the image for a missing one",
        "both empty": "Dice 1" if settings.perfect_when_both_empty else "not scored",
        "reference empty, prediction not": "Dice 0, no distances",
        "cut by the border": "reference vertebrae that touch a border of the image are reported separately: excluded "
        "from the means over levels and the strict naming scores, included in the spine mask and in VerSe's "
        "identification rate",
        "predicted, not in the reference": outside,
        "T13 and L6": "scored like other levels, so a tool without these labels misses them; where they are absent, "
        "shifts skip them",
        "identification (VerSe)": f"labels in both maps whose nearest reference centroid is their own, within "
        f"{HIT_MM:g} mm, over the labels of the reference; false positives cost nothing; centroids are of the masks",
        "names (strict)": "right if VerSe counts a hit and the reference vertebra of that name contains most of the "
        "predicted one; recall over complete reference vertebrae, precision over predicted "
        "ones except those of cut vertebrae",
        "all levels right": "every complete reference vertebra is named right, and every predicted vertebra has the "
        "name of the reference vertebra that contains most of it",
        "instances": f"each label is one instance; matched, whatever its name, at an IoU above {MATCH_IOU:g}",
        "patients": "scans of one patient are averaged first; means, medians and intervals are over patients "
        "(percentile bootstrap, 95 %)",
    }

"""What to do where the metrics leave a choice: every policy has a name, a default, and a sentence in the output."""

from dataclasses import dataclass

from vertebral.core.label_schemes import check_scheme

TOLERANCES_MM = (1, 2, 3)
HIT_MM = 20.0
MATCH_IOU = 0.5
# A predicted vertebra stands for the reference vertebra that holds most of it, if that is this share of it at least.
STANDS_FOR = 0.1


@dataclass(frozen=True)
class Settings:
    """The policies of an evaluation. Raises ConfigError for a scheme that is none.

    `resample`: put predictions that lie on another grid on the reference's (nearest voxel) instead of refusing them.
    `ignore_outside_reference`: leave out predicted vertebrae above or below all that the reference labels.
    `perfect_when_both_empty`: Dice 1 where a scan holds no vertebra and none was predicted, instead of no score.
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
    """Each policy in a sentence, as it stands in every report."""
    outside = (
        "left out: predicted vertebrae above or below the whole reference and less than a tenth of them in it"
        if settings.ignore_outside_reference
        else "counted as false positives, also where the reference may have left out what it shows in part"
    )
    return {
        "grid": "on another grid: put on the reference's, nearest voxel"
        if settings.resample
        else "on another grid: refused; the order and direction of axes do not matter",
        "structures": "vertebrae C1-L6 and T13; sacrum, coccyx and all else are left out on both sides",
        "missing vertebra": "Dice and NSD 0; no distances, so HD95 and ASSD are means over those found, and HD95 is "
        "given a second time with the image's diagonal in its place",
        "both empty": "Dice 1" if settings.perfect_when_both_empty else "not scored",
        "reference empty, prediction not": "Dice 0, no distances",
        "cut by the border": "reference vertebrae that touch a border of the image are a stratum of their own: out of "
        "the means over levels and of the strict naming scores, in the spine's foreground and in VerSe's rate",
        "predicted, not in the reference": outside,
        "T13 and L6": "levels as all others: a tool without them misses them; a step over one that is absent is one",
        "identification (VerSe)": f"labels in both maps whose nearest reference centroid is their own, within "
        f"{HIT_MM:g} mm, over labels in the reference; false positives cost nothing; centroids are those of the masks",
        "names (strict)": "right where VerSe counts a hit and the vertebra of that name holds most of the predicted "
        "one; recall over complete reference vertebrae, precision over predicted ones that are not a cut one's",
        "all levels right": "every complete reference vertebra is named right and every predicted vertebra has the "
        "name of the reference vertebra that holds most of it",
        "instances": f"each label is one instance; matched, whatever its name, at an IoU above {MATCH_IOU:g}",
        "patients": "scans of one patient are averaged first; means, medians and intervals are over patients "
        "(percentile bootstrap, 95 %)",
    }

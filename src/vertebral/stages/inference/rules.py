"""The rules of `inference`: how windows are weighted, what counts as air, and which windows are visited."""

from dataclasses import dataclass

from vertebral.core.rules import rule

_BLENDING = "nnU-Net (Isensee et al. 2021) and MONAI"
_FOLLOWING = "chosen by hand on the validation scans (docs/adr/0016)"


@dataclass(frozen=True)
class InferenceRules:
    """The last four are for windows that follow the spine (`windows`)."""

    window_sigma_share: float = rule(0.125, "share of the window's size", _BLENDING)
    min_weight: float = rule(1e-3, "share of the weight in the middle", _BLENDING)
    air_hu: float = rule(-500.0, "HU", "halfway between air (-1000 HU) and water (0 HU)")
    air_window_share: float = rule(0.01, "share of the HU window, for windows that start above air", _FOLLOWING)
    # C1 alone has more, and what is mistaken for a vertebra usually less.
    min_layer_ml: float = rule(10.0, "ml", _FOLLOWING)
    # Less of it near a side is a stray voxel or the tip of a process.
    side_volume_share: float = rule(0.5, "share of min_layer_ml", _FOLLOWING)
    # Closer to its side a network sees too little context: an eighth and a half of 64 voxels.
    side_share: float = rule(3 / 16, "share of the window's size", _FOLLOWING)
    # Windows of the layer before that held less than this of what the fullest held did not hold the spine.
    kept_share: float = rule(0.1, "share of the fullest window's voxels", _FOLLOWING)

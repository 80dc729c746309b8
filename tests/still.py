"""Settings of the synthesis under which nothing moves and nothing blurs."""

# No pose, no scanner but its gain and offset, the whole patch shown.
STILL: dict[str, object] = {
    "cache_spacing_mm": 2.0,
    "scale": (1, 1),
    "anisotropy": 0,
    "rotation_deg": 0,
    "elastic_mm": 0,
    "mirror_probability": 0,
    "slice_mm": (0.6, 0.6),
    "noise_hu": (0, 0),
    "crop_probability": 0,
}

"""Paint a large CT with a whole spine from a whole-body label map: what speed and memory are measured on.

    python benchmarks/large_scan.py bodyparts3d_3.0_labelmap_1p5mm.nii.gz large [--slices 600 1200]

Writes `large/ct_512x512x<slices>.nii.gz`, 0.7 x 0.7 x 1 mm, with the label map of its vertebrae beside it. The body is
painted at 1.5 mm as for training, interpolated linearly and given noise; 600 slices are aimed at the spine's middle.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from vertebral.core.volume import Volume
from vertebral.data.synthesis.body_cache import CachedBody
from vertebral.data.synthesis.body_map import load_body
from vertebral.data.synthesis.config import SynthesisConfig
from vertebral.data.synthesis.synthetic_ct import paint_body
from vertebral.io.write import write_image, write_labels

BODY_MM, SPACING_MM = 1.5, (0.7, 0.7, 1.0)
IN_PLANE = 512
NOISE_HU = 15
AIR_HU = -1024


def main() -> None:
    """Write the CTs and their labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("body", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--slices", type=int, nargs="+", default=[600, 1200])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    body = load_body(arguments.body, BODY_MM)
    cached = CachedBody("body", 1.0, body.tissue, body.labels, None)
    i, j, k = (slice(0, n) for n in body.labels.shape)
    config = SynthesisConfig(cache_spacing_mm=BODY_MM)
    hu, labels = (values.numpy() for values in paint_body(cached, (i, j, k), torch.Generator().manual_seed(0), config))
    spine = np.argwhere(labels > 0)
    middle_mm = (spine.min(0) + spine.max(0)) / 2 * BODY_MM
    for slices in arguments.slices:
        shape = (IN_PLANE, IN_PLANE, slices)
        spacing = np.array(SPACING_MM)
        first_mm = middle_mm - np.array(shape) * spacing / 2
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = first_mm
        ct, seen = np.empty(shape, np.int16), np.empty(shape, np.uint8)
        rng = np.random.default_rng(0)
        for start in range(0, slices, 50):
            part = slice(start, min(start + 50, slices))
            offset = (first_mm + np.array([0, 0, start * spacing[2]])) / BODY_MM
            size = (*shape[:2], part.stop - part.start)
            scale = spacing / BODY_MM
            values = ndimage.affine_transform(hu, scale, offset, size, order=1, cval=AIR_HU)
            values += NOISE_HU * rng.standard_normal(size, dtype=np.float32)
            ct[:, :, part] = np.clip(values, AIR_HU, 3071).round()
            seen[:, :, part] = ndimage.affine_transform(labels, scale, offset, size, order=0)
        stem = f"{shape[0]}x{shape[1]}x{slices}"
        write_image(Volume(ct, affine), arguments.out / f"{stem}_ct.nii.gz")
        write_labels(Volume(seen, affine), arguments.out / f"{stem}_seg-vert_msk.nii.gz")


if __name__ == "__main__":
    main()

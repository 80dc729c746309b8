"""The refiner's eye: the CT around a centre in, the vertebra that is there out."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vertebral.core.errors import ModelError
from vertebral.core.volume import Grid, Volume
from vertebral.models.config import ModelConfig
from vertebral.models.devices import memory_format, place_network
from vertebral.stages.inference import air_values, cut_window
from vertebral.stages.preprocess import centre_mark, prepare
from vertebral.stages.refine.candidate import Part, Values, within, without_crumbs

_REACH_MM = 20.0
# A second look from closer than this would see the same.
_SAME_CENTRE_MM = 1.5


class Eye:
    """A refiner's network, in eval mode on `device`, before the part of a CT that it will be asked about."""

    def __init__(
        self,
        network: torch.nn.Module,
        config: ModelConfig,
        device: torch.device,
        ras: Volume,
        boxes: Sequence[Sequence[slice]],
    ) -> None:
        """Prepare, at the refiner's spacing, the part of `ras` that holds `boxes` of it and the windows around them."""
        place_network(network, device)
        self._network, self._config, self._device = network, config, device
        parts = []
        for axis, size in enumerate(ras.array.shape):
            # The window's middle lies in the vertebra's box or near it, so it reaches half its size beyond it at most.
            half_mm = config.inference.window[axis] * config.preprocess.spacing_mm / 2 + _REACH_MM
            margin = int(np.ceil(half_mm / ras.spacing_mm[axis]))
            low, high = min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)
            parts.append(slice(max(0, low - margin), min(size, high + margin)))
        self._volume = prepare(ras.cropped((parts[0], parts[1], parts[2])), config.preprocess).volume
        self.scan = ras.grid
        self._mark = centre_mark(config.inference.window, config.preprocess.spacing_mm)

    @property
    def grid(self) -> Grid:
        """The fine grid."""
        return self._volume.grid

    def look_at(self, centre_mm: Sequence[float]) -> Part:
        """The network's answer, seen from `centre_mm` (RAS) and then from the answer's own centroid."""
        centre = self.grid.to_voxel(np.array(centre_mm))
        part = self._seen_from(centre)
        if part.own.any():
            again = part.centroid()
            if np.linalg.norm(again - centre) * self._config.preprocess.spacing_mm > _SAME_CENTRE_MM:
                part = self._seen_from(again)
        return part

    def _seen_from(self, centre: NDArray[np.float64]) -> Part:
        """The answer in the window around `centre` (3,), voxels of the fine grid, as far as the CT reaches."""
        window, array = self._config.inference.window, self._volume.array
        corner = [round(float(c) - (w - 1) / 2) for c, w in zip(centre, window, strict=True)]
        corner = [min(max(c, -w + 1), n - 1) for c, w, n in zip(corner, window, array.shape, strict=True)]
        ct = cut_window(array, tuple(corner), window, air_values(self._config.preprocess)[0])
        probability = self._probability(np.stack([ct, self._mark]))
        i, j, k = (slice(max(0, c), min(n, c + w)) for c, w, n in zip(corner, window, array.shape, strict=True))
        whole = [slice(c, c + w) for c, w in zip(corner, window, strict=True)]
        return Part(without_crumbs(probability[within((i, j, k), whole)]), (i, j, k))

    def _probability(self, image: Values) -> Values:
        """Run the network on `image` (2, I, J, K); return the vertebra's probability (I, J, K)."""
        image_there = torch.from_numpy(image)[None].to(self._device, memory_format=memory_format(self._device))
        output = self._network(image_there)
        expected = (1, 2, *image.shape[1:])
        if not isinstance(output, torch.Tensor) or tuple(output.shape) != expected:
            found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ModelError(f"the refiner gives {found} where {expected} is expected: does its window fit it?")
        probability = torch.softmax(output[0].float(), 0)[1]
        if not bool(torch.isfinite(probability).all()):
            raise ModelError("the refiner's output is not finite: its weights are damaged, or it needs float32")
        return np.asarray(probability.cpu().numpy(), np.float32)

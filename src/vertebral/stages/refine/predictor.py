"""The refiner's network behind one question: which vertebra is at this point of the CT?"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vertebral.core.errors import ModelError
from vertebral.core.volume import Grid, Volume
from vertebral.models.config import ModelConfig
from vertebral.models.devices import memory_format, place_network
from vertebral.stages.inference import air_values, crop_window
from vertebral.stages.preprocess import centre_mark, prepare
from vertebral.stages.refine.candidate import Candidate, Values, relative_box, without_islands
from vertebral.stages.refine.rules import RefineRules


class Predictor:
    """A refiner's network, in eval mode on `device`, with the region of a CT that it will see."""

    def __init__(
        self,
        network: torch.nn.Module,
        config: ModelConfig,
        device: torch.device,
        ras: Volume,
        boxes: Sequence[Sequence[slice]],
        rules: RefineRules,
    ) -> None:
        """Prepare, at the refiner's spacing, the region of `ras` that contains `boxes` and the windows around them."""
        place_network(network, device)
        self._network, self._config, self._device = network, config, device
        region = []
        for axis, size in enumerate(ras.array.shape):
            # The centre of a window is in a vertebra's box or near it, so the window extends half its size beyond.
            half_mm = config.inference.window[axis] * config.preprocess.spacing_mm / 2 + rules.search_margin_mm
            margin = int(np.ceil(half_mm / ras.spacing_mm[axis]))
            low, high = min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)
            region.append(slice(max(0, low - margin), min(size, high + margin)))
        self._volume = prepare(ras.cropped((region[0], region[1], region[2])), config.preprocess).volume
        self.scan, self.rules = ras.grid, rules
        self._mark = centre_mark(config.inference.window, config.preprocess.spacing_mm, rules.mark_sigma_mm)

    @property
    def grid(self) -> Grid:
        """The fine grid."""
        return self._volume.grid

    def predict_at(self, centre_mm: Sequence[float]) -> Candidate:
        """Return the vertebra predicted at `centre_mm` (RAS), then again at the centroid of that prediction."""
        centre = self.grid.to_voxel(np.array(centre_mm))
        candidate = self._predict_around(centre)
        if candidate.own.any():
            again = candidate.centroid()
            if np.linalg.norm(again - centre) * self._config.preprocess.spacing_mm > self.rules.same_centre_mm:
                candidate = self._predict_around(again)
        return candidate

    def _predict_around(self, centre: NDArray[np.float64]) -> Candidate:
        """Predict in the window around `centre` (3,), in voxels of the fine grid, cropped to the CT."""
        window, array = self._config.inference.window, self._volume.array
        corner = [round(float(c) - (w - 1) / 2) for c, w in zip(centre, window, strict=True)]
        corner = [min(max(c, -w + 1), n - 1) for c, w, n in zip(corner, window, array.shape, strict=True)]
        ct = crop_window(array, tuple(corner), window, air_values(self._config.preprocess)[0])
        probability = self._probability(np.stack([ct, self._mark]))
        i, j, k = (slice(max(0, c), min(n, c + w)) for c, w, n in zip(corner, window, array.shape, strict=True))
        whole = [slice(c, c + w) for c, w in zip(corner, window, strict=True)]
        values = probability[relative_box((i, j, k), whole)]
        return Candidate(without_islands(values, self.rules.min_island_share), (i, j, k))

    def _probability(self, image: Values) -> Values:
        """Run the network on `image` (2, I, J, K); return the vertebra's probability (I, J, K)."""
        tensor = torch.from_numpy(image)[None].to(self._device, memory_format=memory_format(self._device))
        output = self._network(tensor)
        expected = (1, 2, *image.shape[1:])
        if not isinstance(output, torch.Tensor) or tuple(output.shape) != expected:
            found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ModelError(
                f"the refiner's output has the shape {found}, expected {expected}; check that the window in its "
                "model.json fits the network"
            )
        probability = torch.softmax(output[0].float(), 0)[1]
        if not bool(torch.isfinite(probability).all()):
            raise ModelError("the refiner's output is not finite: its weights are damaged, or it needs float32")
        return np.asarray(probability.cpu().numpy(), np.float32)

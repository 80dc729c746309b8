"""A validation scan, its reference and the prediction of the run's model, for the overlays of the report."""

from typing import Any

import numpy as np

from vertebral.core.anatomy import level_named
from vertebral.core.volume import Volume
from vertebral.data.patches.network_input import class_of_verse_id
from vertebral.data.verse.prepared_set import PreparedScan
from vertebral.models.devices import Precision
from vertebral.models.weights import Model
from vertebral.stages.preview.comparison import Compared, cut_to_labels
from vertebral.training.validate import predict_classes


def compare(scan: PreparedScan, model: Model, device: Any, precision: Precision = "auto") -> Compared:
    """Run `model` over `scan`; reduce the reference to the levels that the model knows.

    The scan's own labels show the course of the spine, even for a network with one class.
    """
    names = model.config.network.levels
    ids = np.array([0, *(level_named(name).verse_id for name in names)], np.uint8)
    labels = np.asarray(scan.labels)
    reference = ids[class_of_verse_id(names).numpy()[labels]]
    prediction = ids[predict_classes(scan, model.network, model.config, device, precision)]
    ct, truth, found, known = (
        Volume(np.asarray(array), scan.affine) for array in (scan.ct, reference, prediction, labels)
    )
    return cut_to_labels(ct, truth, found, known)

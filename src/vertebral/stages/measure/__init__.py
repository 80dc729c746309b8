"""Measurements of a labelled spine: bodies, discs, curves and bone density, each figure with its quality.

Definitions and sources of all figures: docs/measurements.md.
"""

from vertebral.stages.measure.measuring import measure
from vertebral.stages.measure.rules import MEASURE_RULES, MeasureRules

__all__ = ["MEASURE_RULES", "MeasureRules", "measure"]

"""The rule sets of all stages that a run passes through."""

from dataclasses import dataclass, fields
from typing import Any

from vertebral.core.rules import describe_rules
from vertebral.stages.identify.rules import IdentifyRules
from vertebral.stages.inference.rules import InferenceRules
from vertebral.stages.instances.rules import InstanceRules
from vertebral.stages.measure.rules import MeasureRules
from vertebral.stages.reconstruct.rules import ReconstructRules
from vertebral.stages.refine.rules import RefineRules


@dataclass(frozen=True)
class StageRules:
    """Every threshold that steers a run, by stage."""

    inference: InferenceRules = InferenceRules()
    instances: InstanceRules = InstanceRules()
    refine: RefineRules = RefineRules()
    identify: IdentifyRules = IdentifyRules()
    reconstruct: ReconstructRules = ReconstructRules()
    measure: MeasureRules = MeasureRules()

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return what a manifest records: for each stage the hash of its rules, and those that are not the default."""
        return {entry.name: describe_rules(getattr(self, entry.name)) for entry in fields(self)}

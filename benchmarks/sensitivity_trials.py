"""The trials of `benchmarks/sensitivity.py`: what each rule set is tried on, and how two results are compared."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.identification.cases import Case, load_case
from benchmarks.identification.run import KIND_STRENGTH, corrupted, network_classes
from benchmarks.identification.scores import score

from vertebral.core.anatomy import BY_VERSE_ID, level_named, sort_levels
from vertebral.core.mesh_checks import volume
from vertebral.core.records import Evidence, Scan, Spine
from vertebral.core.volume import Volume
from vertebral.io.ct.read import read_labels, read_scan
from vertebral.stages.identify import IdentifyRules, identify
from vertebral.stages.instances import InstanceRules, LabelMapRules, find_instances
from vertebral.stages.instances.by_labels import instances_from_labels
from vertebral.stages.measure import MeasureRules, measure
from vertebral.stages.reconstruct import ReconstructRules, reconstruct
from vertebral.stages.reconstruct.printing import print_check
from vertebral.stages.rules import StageRules

FIGURE_TOLERANCE = 0.01
Items = dict[Any, Any]


@dataclass(frozen=True)
class Difference:
    """`changed` of `of` items differ; `identical` if nothing differs, not even below the threshold."""

    changed: int
    of: int
    identical: bool
    detail: str = ""


@dataclass(frozen=True)
class Trial:
    """A rule set, and how one case is computed with it and compared: items are the same keys before and after."""

    name: str
    data: str
    rules: Any
    cases: Sequence[Any]
    compute: Callable[[Any, Any], Items]
    compare: Callable[[Items, Items], Difference]


Makers = dict[str, Callable[[], Trial]]


def spine_items(spine: Spine) -> Items:
    """Return for each level its voxels (a hash), reasons for review without their values, confidence and quality."""
    return {
        v.level.name: (
            _hash(v.instance.occupancy, [side.start for side in v.instance.box]),
            tuple(reason.split(" (")[0] for reason in v.needs_review),
            v.confidence,
            v.quality,
        )
        for v in spine.vertebrae
    }


def _hash(*arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def compare_spines(before: Items, after: Items) -> Difference:
    """Count vertebrae with other voxels, another name or other reasons for review; state the scores, if there are."""
    scores = [[items.pop(key) for key in list(items) if key[1] == "score"] for items in (before, after)]
    keys = before.keys() | after.keys()
    changed = sum((before.get(key) or ("", ()))[:2] != (after.get(key) or ("", ()))[:2] for key in keys)
    lost, new = (
        " ".join(sorted({key[1] for key in one.keys() - other.keys()})) or "-"
        for one, other in ((before, after), (after, before))
    )
    detail = f"instances {len(before)} -> {len(after)}, names lost: {lost}, new: {new}"
    if scores[0]:
        detail = " -> ".join(map(_score_text, scores)) + f"; {detail}"
    return Difference(changed, len(keys), before == after and scores[0] == scores[1], detail)


def _score_text(scores: list[tuple[bool, int, int]]) -> str:
    all_right, right, expected = (sum(column) for column in zip(*scores, strict=True))
    return f"all right {all_right}/{len(scores)}, id rate {right / max(1, expected):.3f}"


def compare_figures(before: Items, after: Items) -> Difference:
    """Count figures that differ by more than 1 %, or in quality."""
    keys = before.keys() | after.keys()
    changed = [key for key in keys if _differs(before.get(key), after.get(key))]
    columns = sorted({column for _, (_, _, column) in changed})
    return Difference(len(changed), len(keys), before == after, " ".join(columns))


def _differs(one: Any, other: Any) -> bool:
    if one is None or other is None or one[1] != other[1]:
        return True
    if isinstance(one[0], float) and isinstance(other[0], float):
        return abs(one[0] - other[0]) > FIGURE_TOLERANCE * abs(one[0])
    return bool(one[0] != other[0])


def compare_meshes(before: Items, after: Items) -> Difference:
    """Count vertebrae whose mesh or printing check differs, and state the largest change of volume."""
    keys = before.keys() | after.keys()
    changed = sum(before.get(key) != after.get(key) for key in keys)
    ratios = [abs(after[key][1] / before[key][1] - 1) for key in before.keys() & after.keys()]
    return Difference(changed, len(keys), before == after, f"volume by up to {100 * max(ratios, default=0):.3f} %")


def label_map_trials(maps: list[Path], kinds: Sequence[str], keep: int, seed: int) -> Makers:
    """Return what makes each trial on label maps, by its name."""

    def cases() -> list[Case]:
        whole = [load_case(path) for path in maps]
        return [corrupted(case, kind, KIND_STRENGTH, 0, seed) for case in whole for kind in kinds]

    def scored(case: Case, spine: Spine) -> Items:
        found = score(spine, case)
        return {**spine_items(spine), "score": (found.all_right, found.right, found.expected)}

    def from_labels(case: Case, rules: LabelMapRules) -> Items:
        return scored(case, identify(instances_from_labels(case.volume(case.claims), network_classes(case), rules)))

    def named(pair: Any, rules: IdentifyRules) -> Items:
        return scored(pair[0], identify(pair[1], rules=rules))

    def with_instances() -> list[Any]:
        return [(c, instances_from_labels(c.volume(c.claims), network_classes(c))) for c in cases()]

    def some() -> list[tuple[Volume, Volume | None]]:
        return [(lowest(read_labels(path), keep), ct_of(path)) for path in maps]

    def spines() -> list[Spine]:
        found = []
        for labels, _ in some():
            levels = tuple(sort_levels(BY_VERSE_ID[int(value)] for value in np.unique(labels.array) if value))
            found.append(identify(instances_from_labels(labels, levels)))
        return found

    names_of = " ".join(path.name.split("_seg-")[0] for path in maps)
    corrupt, lower = f"{names_of}; seed {seed}: {', '.join(kinds)}", f"{names_of}; lowest {keep}"
    return {
        "instances": lambda: Trial("instances", corrupt, LabelMapRules(), cases(), from_labels, compare_spines),
        "names": lambda: Trial("names", corrupt, IdentifyRules(), with_instances(), named, compare_spines),
        "figures": lambda: Trial("figures", lower, MeasureRules(), some(), figure_items, compare_figures),
        "meshes": lambda: Trial("meshes", lower, ReconstructRules(), spines(), mesh_items, compare_meshes),
    }


def lowest(labels: Volume, keep: int) -> Volume:
    """Return a label map with its lowest `keep` levels only."""
    levels = sort_levels(BY_VERSE_ID[int(value)] for value in np.unique(labels.array) if int(value) in BY_VERSE_ID)
    kept = np.isin(labels.array, [level.verse_id for level in levels[-keep:]])
    return Volume(np.where(kept, labels.array, 0).astype(np.uint8), labels.affine)


def ct_of(path: Path) -> Volume | None:
    """Return the CT in the folder of a label map, or None."""
    ct = path.with_name(path.name.replace("_seg-vert_msk", "_ct"))
    return read_scan(ct).volume if ct != path and ct.exists() else None


def figure_items(case: tuple[Volume, Volume | None], rules: MeasureRules) -> Items:
    """Return (value, quality) by table, row and column."""
    found = measure(*case, rules=rules)
    return {
        (table, row.name, column): (figure.value, figure.quality)
        for table, rows in found.tables.items()
        for row in rows
        for column, figure in row.figures.items()
    }


def mesh_items(spine: Spine, rules: ReconstructRules) -> Items:
    """Return a mesh's hash, its volume in mm3 and its printing check by level."""
    return {
        surface.name: (
            _hash(surface.vertices_mm, surface.faces),
            volume(surface.vertices_mm, surface.faces),
            str(print_check(surface, rules)),
        )
        for surface in reconstruct(spine, rules=rules)
    }


def scan_trials(ct: Path, networks: bool) -> Makers:
    """Return what makes each trial on a scan, by its name; with `networks`, those that run them for each row too."""
    from vertebral.models.load import load_models
    from vertebral.workflows.config import RunConfig
    from vertebral.workflows.run import segment

    loaded: dict[str, Any] = {}

    def evidence() -> list[Evidence]:
        if "evidence" not in loaded:
            loaded["models"] = loaded.get("models") or load_models(RunConfig())
            loaded["evidence"] = coarse_evidence(read_scan(ct), loaded["models"])
        found = loaded["evidence"]
        return [found] if found.offset_mm is None else [found, replace(found, offset_mm=None)]

    def instances(case: Evidence, rules: InstanceRules) -> Items:
        return spine_items(identify(find_instances(case, rules)))

    def names(case: Any, rules: IdentifyRules) -> Items:
        return spine_items(identify(case, rules=rules))

    def whole(stage: str, rules: Any) -> Trial:
        loaded["models"] = loaded.get("models") or load_models(RunConfig())

        def run(scan: Scan, varied_rules: Any) -> Items:
            return spine_items(segment(scan, loaded["models"], rules=StageRules(**{stage: varied_rules})).spine)

        return Trial(f"scan {stage}", ct.name, rules, [read_scan(ct)], run, compare_spines)

    made: Makers = {
        "scan instances": lambda: Trial(
            "scan instances", ct.name, InstanceRules(), evidence(), instances, compare_spines
        ),
        "scan names": lambda: Trial(
            "scan names", ct.name, IdentifyRules(), [find_instances(e) for e in evidence()], names, compare_spines
        ),
    }
    if networks:
        made["scan inference"] = lambda: whole("inference", StageRules().inference)
        made["scan refine"] = lambda: whole("refine", StageRules().refine)
    return made


def coarse_evidence(scan: Scan, models: Any) -> Evidence:
    """Return what the coarse network sees in a scan, as a run would."""
    from vertebral.stages.inference import infer
    from vertebral.stages.preprocess import prepare

    model = models.coarse
    levels = tuple(level_named(name) for name in model.config.network.levels)
    prepared = prepare(scan.volume, model.config.preprocess)
    return infer(
        prepared,
        model.network,
        model.config.inference,
        levels,
        models.device,
        offsets=model.config.network.offsets,
        follow=True,
    )

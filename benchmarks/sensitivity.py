"""Which rules matter? Each rule is varied by -20 % and +20 %, one at a time; what does that change?

    python -m benchmarks.sensitivity MAPS... --out OUT [--scan CT] [--networks] [--keep 3] [--kinds ...] [--only ...]

MAPS are label maps with VerSe ids. The trials, with the rule set of each:
- `instances`: LabelMapRules and `names`: IdentifyRules, on corrupted maps (benchmarks/identification);
- `figures`: MeasureRules, with the CT where NAME_ct.nii.gz is in the folder of NAME_seg-vert_msk.nii.gz, and `meshes`:
  ReconstructRules, on the lowest `--keep` levels of each map;
- `scan instances`: InstanceRules and `scan names`: IdentifyRules, on the evidence of the coarse network for `--scan`;
- `scan inference` and `scan refine`: InferenceRules and RefineRules, on whole runs of `--scan`, only with `--networks`.

Writes sensitivity.csv (a row per trial, data, rule and variation, as it goes; rows that exist are skipped) and
sensitivity.md into OUT. Runs on other data add to the same table. A rule that is not read on a case is not computed
there: it cannot change anything. Run it from the repository's root.
"""

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.identification.cases import find_maps
from benchmarks.identification.corrupt import KINDS
from benchmarks.sensitivity_trials import Difference, Items, Trial, label_map_trials, scan_trials
from rich.console import Console
from rich.progress import track

from vertebral.core.errors import InputError, VertebralError
from vertebral.io.write import atomic_write

SHARES = (-0.2, 0.2)
TRIALS = ("instances", "names", "figures", "meshes", "scan instances", "scan names", "scan inference", "scan refine")
CASE_KINDS = ("merged", "split arch", "mixture")
STATES = ("changed", "slightly", "same", "not read")


@dataclass(frozen=True)
class Row:
    """What one variation of one rule changed. `read`: the stage looked at the rule on at least one case."""

    trial: str
    data: str
    rules: str
    rule: str
    default: str
    share: float
    value: str
    read: bool
    changed: int
    of: int
    identical: bool
    detail: str
    seconds: float

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if self.changed:
            return "changed"
        return "not read" if not self.read else "same" if self.identical else "slightly"


def varied(value: Any, share: float) -> Any:
    """Return a rule's value times 1 + `share`; whole numbers by at least 1, tuples by element."""
    if isinstance(value, tuple):
        return tuple(varied(element, share) for element in value)
    if isinstance(value, int):
        return value + int(np.sign(share)) * max(1, round(abs(value * share)))
    return value * (1 + share)


def recorded(rules: Any, read: set[str]) -> Any:
    """Return the same rules; the names of those that are looked at are added to `read`."""

    class Recorded(type(rules)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    return Recorded(**asdict(rules))


def variations(trial: Trial, done: set[tuple[str, str, str, float]]) -> Iterator[Row]:
    """Yield the row of each variation of a trial whose (trial, data, rule, share) is not in `done`."""
    pending = [(entry.name, share) for entry in fields(trial.rules) for share in SHARES]
    pending = [(rule, share) for rule, share in pending if (trial.name, trial.data, rule, share) not in done]
    if not pending:
        return
    reads: list[set[str]] = [set() for _ in trial.cases]
    before = [trial.compute(case, recorded(trial.rules, read)) for case, read in zip(trial.cases, reads, strict=True)]
    for rule, share in track(pending, trial.name, console=Console(stderr=True)):
        default = getattr(trial.rules, rule)
        value = varied(default, share)
        start = time.perf_counter()
        try:
            rules = replace(trial.rules, **{rule: value})
            after = [
                trial.compute(case, rules) if rule in read else items
                for case, read, items in zip(trial.cases, reads, before, strict=True)
            ]
        except Exception as error:  # what a value breaks is a result
            count = sum(map(len, before))
            found = Difference(count, count, False, f"{type(error).__name__}: {error}")
        else:
            found = trial.compare(_joined(before), _joined(after))
        yield Row(
            trial=trial.name,
            data=trial.data,
            rules=type(trial.rules).__name__,
            rule=rule,
            default=str(default),
            share=share,
            value=str(value),
            read=any(rule in read for read in reads),
            **asdict(found),
            seconds=round(time.perf_counter() - start, 2),
        )


def _joined(cases: list[Items]) -> Items:
    return {(n, key): item for n, items in enumerate(cases) for key, item in items.items()}


def read_rows(path: Path) -> list[Row]:
    """Return the rows that an earlier run wrote; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(record) for record in csv.DictReader(file)]


def _row(record: dict[str, str]) -> Row:
    convert = {"share": float, "seconds": float, "changed": int, "of": int}
    convert |= dict.fromkeys(("read", "identical"), lambda text: text == "True")
    return Row(**{name: convert.get(name, str)(text) for name, text in record.items()})


def append_row(row: Row, path: Path) -> None:
    """Add a row to the CSV, with a header if it is the first."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [entry.name for entry in fields(Row)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def states(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """Return the strongest state of each (rule set, rule) over its trials and variations."""
    found: dict[tuple[str, str], str] = {}
    for row in rows:
        key = (row.rules, row.rule)
        found[key] = min(found.get(key, STATES[-1]), row.state, key=STATES.index)
    return found


def markdown(rows: Sequence[Row]) -> str:
    """Return the counts by rule set, the most influential rules of each trial, and the rules that changed nothing."""
    found = states(rows)
    lines = ["| rule set | rules | changed | slightly | same | not read |", "|---|---|---|---|---|---|"]
    sets = list(dict.fromkeys(name for name, _ in found))
    for name in [*sets, "all"]:
        own = [state for (owner, _), state in found.items() if name in (owner, "all")]
        lines.append(f"| {name} | {len(own)} | {' | '.join(str(own.count(state)) for state in STATES)} |")
    lines += ["", "| rule | trial | variation | changed | detail |", "|---|---|---|---|---|"]
    strongest = {}
    for row in sorted(rows, key=lambda row: -row.changed / max(1, row.of)):
        if row.changed:
            strongest.setdefault((row.rules, row.rule), row)
    for row in strongest.values():
        share = f"{row.changed} of {row.of}"
        lines.append(f"| {row.rules}.{row.rule} | {row.trial} | {row.share:+.0%} | {share} | {row.detail} |")
    for state in STATES[1:]:
        for name in sets:
            own_rules = [rule for (owner, rule), value in found.items() if owner == name and value == state]
            if own_rules:
                lines += ["", f"{state}, {name}: {', '.join(own_rules)}"]
    return "\n".join(lines) + "\n"


def run_trials(arguments: argparse.Namespace) -> list[Row]:
    """Run what is not done yet, row by row; return all rows. Raises InputError for data that cannot be used."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    table = arguments.out / "sensitivity.csv"
    maps = find_maps(arguments.maps)
    makers = label_map_trials(maps, arguments.kinds, arguments.keep, arguments.seed)
    if arguments.scan is not None:
        makers |= scan_trials(arguments.scan, arguments.networks)
    for name in arguments.only or makers:
        if name not in makers:
            raise InputError(f"trial {name}: needs --scan, and for inference and refine --networks")
        done = {(row.trial, row.data, row.rule, row.share) for row in read_rows(table)}
        for row in variations(makers[name](), done):
            append_row(row, table)
    return read_rows(table)


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line says, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scan", type=Path, help="a CT for the trials that need the networks' evidence")
    parser.add_argument("--networks", action="store_true", help="also run --scan as a whole for each rule: takes hours")
    parser.add_argument("--keep", type=int, default=3, help="lowest levels of each map that are measured and meshed")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(CASE_KINDS), help="corruptions of each map")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other corruptions")
    parser.add_argument("--only", nargs="+", choices=TRIALS, help="run these trials only")
    arguments = parser.parse_args(words)
    try:
        rows = run_trials(arguments)
    except VertebralError as error:
        parser.exit(error.exit_code, f"{error}\n")
    text = markdown(rows)
    with atomic_write(arguments.out / "sensitivity.md") as draft:
        draft.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()

"""How often is every vertebra of a spine named right?

    python -m benchmarks.identification MAPS... --out OUT [--repeats 3] [--seed 0] [--overwrite]

MAPS are correct label maps with VerSe ids, or folders of them. Each is corrupted as networks corrupt label maps, named
again and scored, together with two rivals that are given the true instances: the majority label of each, and counting
downwards from the topmost one. Writes identify.csv, .json, .md and .png into OUT. Run it from the repository's root.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.identification.report import markdown, refuse_results, summarise, write_report
from benchmarks.identification.run import run_benchmark

from vertebral.core.errors import VertebralError


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark as the command line says, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=1, help="how often each map is corrupted in each way")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other corruptions")
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args(words)
    try:
        refuse_results(arguments.out, arguments.overwrite)
        rows = run_benchmark(arguments.maps, arguments.repeats, arguments.seed)
        write_report(rows, arguments.out)
    except VertebralError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print(markdown(summarise(rows)), end="")


if __name__ == "__main__":
    main()

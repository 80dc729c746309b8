"""The manifest in a folder of results: which files it lists, and whether they are still what it says."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertebral.core.errors import ReadError
from vertebral.runtime.hashing import file_sha256

MANIFEST = "manifest.json"
LABELS_ENDING = "_seg-vert_msk.nii.gz"


@dataclass(frozen=True)
class Listed:
    """What the manifest of `folder` lists: `hashes` are the SHA-256 of files by name, `labels` is the label map's."""

    folder: Path
    manifest: dict[str, Any]
    hashes: dict[str, str]
    labels: str

    @property
    def stem(self) -> str:
        """What the names of all files begin with."""
        return self.labels.removesuffix(LABELS_ENDING)

    @property
    def labels_path(self) -> Path:
        """The label map."""
        return self.folder / self.labels

    @property
    def labels_unchanged(self) -> bool:
        """True where the label map is there, and as the run wrote it."""
        return self.labels_path.is_file() and file_sha256(self.labels_path) == self.hashes[self.labels]


def read_listed(folder: Path) -> Listed:
    """Read what the manifest of a result lists. Raises ReadError where it names no label map."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes = {str(row["file"]): str(row["sha256"]) for row in manifest["outputs"]}
        labels = next(name for name in hashes if name.endswith(LABELS_ENDING))
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise no_result(folder) from error
    return Listed(folder, manifest, hashes, labels)


def no_result(folder: Path) -> ReadError:
    """The error for a folder that is no result."""
    return ReadError(
        f"{folder}: no result of `vertebral run` (its {MANIFEST} names no label map); give that or a label map"
    )


def file_row(path: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def file_rows(folder: Path) -> list[dict[str, Any]]:
    """What a manifest says of all files in `folder`, by name."""
    return [file_row(path) for path in sorted(folder.iterdir())]

"""Raw CT in, a labelled, measurable, printable 3D spine out. Research use only, not for diagnosis.

    import vertebral

    result = vertebral.segment("ct.nii.gz")
    print(result.vertebrae[0].level, result.to_pandas())
    result.save("out")

Importing this package is cheap: each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vertebral.core.about import DISCLAIMER

if TYPE_CHECKING:
    from vertebral.core.about import __version__
    from vertebral.core.anatomy import LEVELS
    from vertebral.core.errors import VertebralError
    from vertebral.core.volume import Volume
    from vertebral.workflows.api import evaluate, load_models, measure, mesh, read_ct, relabel, run, segment
    from vertebral.workflows.result import Result

__all__ = [
    "DISCLAIMER",
    "LEVELS",
    "Result",
    "VertebralError",
    "Volume",
    "__version__",
    "evaluate",
    "load_models",
    "measure",
    "mesh",
    "read_ct",
    "relabel",
    "run",
    "segment",
]

_HOMES = {
    "__version__": "vertebral.core.about",
    "LEVELS": "vertebral.core.anatomy",
    "VertebralError": "vertebral.core.errors",
    "Volume": "vertebral.core.volume",
    "Result": "vertebral.workflows.result",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "vertebral.workflows.api")), name)


def __dir__() -> list[str]:
    return __all__

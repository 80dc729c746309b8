"""Raw CT in, a labelled, measurable, printable 3D spine out. Research use only, not for diagnosis."""

from vertebral.core.about import DISCLAIMER, __version__

__all__ = ["DISCLAIMER", "__version__"]

"""Raw CT in, a labelled, measurable, printable 3D spine out. Research use only, not for diagnosis."""

from importlib.metadata import version

__version__ = version("vertebral")
DISCLAIMER = "Research use only. Not for diagnosis."

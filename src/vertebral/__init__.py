"""vertebral: a raw CT in, a labelled, measurable, printable 3D spine out (research use only, not for diagnosis)."""

from importlib.metadata import version

__version__ = version("vertebral")

"""What the program says of itself."""

from importlib.metadata import version

__version__ = version("vertebral")
DISCLAIMER = "Research use only. Not for diagnosis."

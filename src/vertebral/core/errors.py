"""One exception tree. The library raises; only `cli` turns an error into a line of text and an exit code."""


class VertebralError(Exception):
    """Any failure that vertebral foresees. `exit_code` is what the command line ends with."""

    exit_code = 1


class InputError(VertebralError):
    """What the user gave cannot be used; the message names the file, the value and the remedy."""

    exit_code = 2


class ReadError(InputError):
    """A file or folder is not a CT that can be read faithfully."""


class GeometryError(InputError):
    """An affine, spacing or shape that describes no usable grid, or two grids that differ."""


class ConfigError(InputError):
    """A setting is unknown, out of range or contradicts another."""


class OutputExistsError(InputError):
    """Results are already there and overwriting was not asked for."""


class ModelError(InputError):
    """A model is unknown, incomplete or damaged."""


class DownloadError(VertebralError):
    """Public data could not be fetched or does not match its known hash."""


class PacsError(InputError):
    """A DICOMweb server cannot be reached, refuses, or does not hold what was asked for."""


class RenderError(VertebralError):
    """The renderer of this machine failed; results without pictures are still valid."""

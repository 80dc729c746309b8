"""All exceptions of the library. Only `cli` turns them into a line of text and an exit code."""


class VertebralError(Exception):
    """Base class of all foreseen failures. `exit_code` is the exit code of the command line."""

    exit_code = 1


class InputError(VertebralError):
    """The input cannot be used; the message names the file, the value and the remedy."""

    exit_code = 2


class ReadError(InputError):
    """A file or folder cannot be read as a CT or a label map without guessing."""


class GeometryError(InputError):
    """An affine, spacing or shape is not usable, or two grids differ that must be the same."""


class ConfigError(InputError):
    """A setting is unknown, out of range, or contradicts another setting."""


class OutputExistsError(InputError):
    """Results already exist, and overwriting was not requested."""


class ModelError(InputError):
    """A model is unknown, incomplete or damaged."""


class DownloadError(VertebralError):
    """Public data could not be downloaded, or does not match its known hash."""


class PacsError(InputError):
    """A DICOMweb server cannot be reached, refuses the request, or does not have the series."""


class RenderError(VertebralError):
    """3D rendering failed on this machine; results without pictures are still valid."""

"""Version and disclaimer."""

DISCLAIMER = "Research use only. Not for diagnosis."


def __getattr__(name: str) -> str:
    """Look up `__version__` when it is first used: importing importlib.metadata is slow."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("vertebral")

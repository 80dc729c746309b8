"""Version and disclaimer."""

DISCLAIMER = "Research use only. Not for diagnosis."
__version__: str  # looked up when it is first used, because importing importlib.metadata is slow


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("vertebral")

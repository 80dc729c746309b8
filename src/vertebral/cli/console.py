"""Shared by all commands: options, errors as one line, progress on standard error, results on standard output."""

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from vertebral.core.errors import ConfigError, VertebralError

OutFolder = Annotated[Path, typer.Option("--out", help="Folder for the results; created if missing.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda; auto uses a GPU if there is one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output and nothing else.")]


def check_device(name: str) -> None:
    """Raise ConfigError for an unknown --device."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {name}: use auto, cpu or cuda")


@contextmanager
def errors(as_json: bool) -> Iterator[None]:
    """Turn a foreseen error into one line on standard error (or JSON on standard output) and its exit code."""
    try:
        yield
    except VertebralError as error:
        _fail(str(error), error.exit_code, as_json)
    except KeyboardInterrupt:
        _fail("interrupted", 130, as_json)
    except MemoryError:
        _fail("out of memory: close other programs, crop the CT, or run on a larger machine", 1, as_json)
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        _fail(f"{path}{error.strerror or error}: check the path and the free disk space", 1, as_json)


def _fail(message: str, code: int, as_json: bool) -> NoReturn:
    message = " ".join(message.split())
    if as_json:
        print_json({"error": message, "exit_code": code})
    else:
        print(f"vertebral: {message}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM, which a cluster sends to end a job, clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stages(silent: bool) -> Iterator[Callable[[str, float], None]]:
    """Yield `progress(stage, share)`, shown as one bar per stage on standard error."""
    if silent:
        yield lambda name, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(name: str, share: float) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0)
            bars.update(tasks[name], completed=share)

        yield show


@contextmanager
def stages_as_json() -> Iterator[Callable[[str, float], None]]:
    """Yield `progress(stage, share)`, printed as JSON lines on standard error for another program to read."""
    import json

    yield lambda name, share: print(json.dumps({"stage": name, "share": round(share, 4)}), file=sys.stderr, flush=True)


@contextmanager
def counted(silent: bool) -> Iterator[Callable[[int, int, str], None]]:
    """Yield `progress(done, total, text)`, shown as a bar on standard error, or as lines if that is not a terminal."""
    if silent:
        yield lambda done, total, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total, text: print(f"{text} ({done}/{total})", file=sys.stderr, flush=True)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total, text: bars.update(task, completed=done, total=total, description=text)


@contextmanager
def steps(silent: bool) -> Iterator[Callable[[str], None]]:
    """Yield `say(text)`, shown next to a spinner on standard error."""
    if silent:
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield lambda text: status.update(text)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON document. NaN and infinity, which JSON does not have, become null."""
    import json

    print(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_files(files: dict[str, Path], quiet: bool, as_json: bool) -> None:
    """Print the paths of the files that were written, one per line or as one JSON document."""
    if as_json:
        print_json({name: str(path) for name, path in files.items()})
    elif not quiet:
        for path in files.values():
            print(path)

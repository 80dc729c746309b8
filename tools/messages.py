"""Write `docs/messages.md`: every sentence that `vertebral` can show a user, by room, module and function.

    python tools/messages.py            # write it
    python tools/messages.py --check    # exit with code 1 if it is out of date, as `make lint` does

The source is parsed, not run. An error is the argument of an exception, a help text that of a command or an option;
any other string with three plain words in a row is a text: a warning, a reason, a printed line, a caption. Values that
are filled in appear as {name}.
"""

import argparse
import ast
import itertools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE, PAGE = ROOT / "src" / "vertebral", ROOT / "docs" / "messages.md"
_SENTENCE = re.compile(r"[\w'}`)-]+[,:;]? [({`]?[a-z'-]+[,:;}`]? [({`]?[a-z'`-]+")
_NO_SENTENCE = re.compile(r"^\s*<|src '|property |This process |\[\[")  # markup, policies, file headers, filters
_HELP_KEYWORDS = ("help", "epilog")


@dataclass(frozen=True)
class Message:
    """A text and where it is said: `place` is module:function, `kind` error, help or text."""

    room: str
    place: str
    kind: str
    text: str


def text_of(node: ast.AST) -> str | None:
    """Return a string, an f-string or a sum with one as text with {names}; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or f"{{{_name(part)}}}" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        if left is not None or right is not None:
            return f"{left or '{' + _name(node.left) + '}'}{right or '{' + _name(node.right) + '}'}"
    return None


def _name(node: ast.AST) -> str:
    """A short name for a value: its variable, attribute or key, or that of the first value it is made of."""
    if isinstance(node, ast.Name):
        return node.id.lstrip("_").lower()
    if isinstance(node, ast.Attribute) and not node.attr.startswith("__"):
        return node.attr.lstrip("_").lower()
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        return node.slice.value
    if isinstance(node, ast.Call):
        return _name(node.args[0] if node.args else node.func)
    if isinstance(node, (ast.GeneratorExp, ast.ListComp)):
        return _name(node.generators[0].iter)
    inner = (child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
    return next((name for child in inner if (name := _name(child)) != "value"), "value")


def _commands() -> frozenset[str]:
    """The names of the functions that `app.command(...)` registers, as a decorator or called with them."""
    found: set[str] = set()
    for path in (SOURCE / "cli").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any("command" in ast.unparse(d) for d in node.decorator_list):
                found.add(node.name)
            elif isinstance(node, ast.Call) and ".command(" in ast.unparse(node.func):
                found.update({"web_app": "app"}.get(name, name) for name in map(ast.unparse, node.args))
    return frozenset(found)


class _Reader:
    """Reads the messages of one module."""

    def __init__(self, path: Path, commands: frozenset[str]) -> None:
        parts = path.relative_to(SOURCE).with_suffix("").parts
        self._module = ".".join(parts).removesuffix(".__init__")
        self._room = parts[0] if len(parts) > 1 else "vertebral"
        self._commands = commands if self._room == "cli" else frozenset[str]()

    def read(self, node: ast.AST, place: tuple[str, ...] = (), kind: str = "text") -> Iterator[Message]:
        """Yield the messages in `node`, which is inside the functions and classes `place`."""
        text = text_of(node)
        if text is not None and (kind != "text" or (_SENTENCE.search(text) and not _NO_SENTENCE.search(text))):
            yield self._message(place, kind, text)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name in self._commands and not place:
                yield self._message((node.name,), "help", ast.get_docstring(node) or "")
            place = (*place, node.name)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            kind = "error" if name.endswith("Error") or name in ("HTTPException", "damaged") else "text"
        elif isinstance(node, ast.keyword):
            kind = "help" if node.arg in _HELP_KEYWORDS else "text"
        elif not isinstance(node, ast.IfExp):
            kind = "text"
        for child in ast.iter_child_nodes(node):
            part_of_text = text is not None and text_of(child) is not None
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if not part_of_text and not is_docstring:
                yield from self.read(child, place, kind)

    def _message(self, place: tuple[str, ...], kind: str, text: str) -> Message:
        where = f"{self._module}:{'.'.join(place)}" if place else self._module
        return Message(self._room, where, kind, " ".join(text.split()))


def messages() -> list[Message]:
    """Return all messages of the package, each once a place, in the order of rooms, modules and code."""
    commands = _commands()
    found: list[Message] = []
    for path in sorted(SOURCE.rglob("*.py")):
        found += _Reader(path, commands).read(ast.parse(path.read_text(encoding="utf-8")))
    return list(dict.fromkeys(found))


def page(found: list[Message]) -> str:
    """Return `found` as Markdown, a section a room."""
    lines = [
        "# Messages",
        "",
        "Every text that `vertebral` can show: errors, help texts, warnings, reasons, captions. Values that are filled",
        "in appear as {name}. Written by `python tools/messages.py`: change the source, not this page.",
    ]
    for room, in_room in itertools.groupby(found, key=lambda message: message.room):
        lines += ["", f"## {room}"]
        for place, here in itertools.groupby(in_room, key=lambda message: message.place):
            lines += ["", f"`{place}`", ""]
            lines += [f"- *{message.kind}* {_escaped(message.text)}" for message in here]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\*_<>|\[\]])", r"\\\1", text)


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    text = page(messages())
    if not parser.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/messages.md is out of date: run `python tools/messages.py`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

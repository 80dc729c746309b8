"""MkDocs hooks: the pages of the documentation site that are not kept in docs/.

The README, the changelog and the like are shown as they are, with their links rewritten; the reference of the commands
is made by Typer from the commands themselves, and the tables of rules from the rule sets; notebooks are shown with
their code; the design records are listed as they are found.
"""

import logging
import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "README.es.md": "es.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "NOTICE": "notice.md",
}
ROOMS = "core|runtime|io|models|stages|workflows|data|evaluation|training|web|cli|src|tests|tools|benchmarks|viewer"
SOURCE = re.compile(rf"`((?:{ROOMS})/[\w./-]*)`")

log = logging.getLogger("mkdocs.hooks.docs_site")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the design records at the end of the navigation."""
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    config.nav = [*(config.nav or []), {"Design records": [f"adr/{record.name}" for record in records]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the root of the repository, the commands, the tables of rules and the notebooks."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        shown = text if name.endswith(".md") else f"# {name.capitalize()}\n\n```text\n{text}```\n"
        files.append(File.generated(config, page, content=shown))
    files.append(File.generated(config, "cli.md", content=commands()))
    files.append(File.generated(config, "rules.md", content=rules()))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.py")):
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=notebook(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to the root of the repository, and from there into docs/, at the pages of the site.

    A source path in the text that does not exist is a warning; design records may speak of what is gone.
    """
    if not page.file.src_uri.startswith("adr/"):
        for path in SOURCE.findall(markdown):
            if not any((folder / path).exists() for folder in (ROOT, ROOT / "src" / "vertebral")):
                log.warning("%s: there is no %s", page.file.src_uri, path)
    for name, shown in PAGES.items():
        markdown = markdown.replace(f"]({name})", f"]({shown})").replace(f"](../{name})", f"]({shown})")
    return re.sub(r"\]\(docs/", "](", markdown) if page.file.src_uri in PAGES.values() else markdown


def commands() -> str:
    """Return the reference of all commands in Markdown, as Typer makes it, with the examples set as code."""
    made = subprocess.run(
        [sys.executable, "-m", "typer", "vertebral.cli", "utils", "docs", "--name", "vertebral", "--title", "Commands"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return re.sub(r"^(Examples?: )?(vertebral .+)$", r"\1`\2`", made.stdout, flags=re.MULTILINE)


def notebook(path: Path) -> str:
    """Return a notebook in the percent format as Markdown: its text, and each cell of code as a block."""
    _, *cells = re.split(r"^# %%(.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = []
    for kind, cell in zip(cells[::2], cells[1::2], strict=True):
        is_text = kind.strip() == "[markdown]"
        shown.append(re.sub(r"^# ?", "", cell, flags=re.MULTILINE) if is_text else f"```python\n{cell.strip()}\n```\n")
    return "\n".join([*shown, f"[This notebook as a file]({path.name})"])


def rules() -> str:
    """Return a table in Markdown of each rule set of the package: names, values, units and sources."""
    package = ROOT / "src"
    parts = ["# Rules\n\nThe thresholds of the stages, each with its unit and where its value comes from.\n"]
    for path in sorted(package.rglob("*.py")):
        for name in re.findall(r"^class (\w+Rules)\b", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            module = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
            rule_set = getattr(import_module(module), name)
            parts += [f"\n## {name}\n\n`{path.relative_to(package)}`: {rule_set.__doc__}\n"]
            parts += ["| rule | value | unit | source |\n|---|---|---|---|"]
            for entry in fields(rule_set):
                known = entry.metadata
                parts.append(f"| `{entry.name}` | {entry.default} | {known.get('unit')} | {known.get('source')} |")
    return "\n".join(parts)

"""`report.html` as one file: facts, volumes, meshes, scripts and styles are inside, and nothing is fetched."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vertebral.core.errors import ReadError
from vertebral.core.measurements import Measurements
from vertebral.core.records import Surface
from vertebral.io.result_folder import REPORT
from vertebral.io.write import atomic_write
from vertebral.stages.report.contents import Contents, contents

_STATIC = Path(__file__).parent / "static"
_FACTS = re.compile(r'<script type="application/json" id="facts">(.*?)</script>', re.DOTALL)
_BLOB = re.compile(r'<script type="application/octet-stream" data-name="([\w.-]+)">(.*?)</script>', re.DOTALL)


def write_report(
    folder: Path,
    manifest: Mapping[str, Any],
    files: Sequence[str],
    surfaces: Sequence[Surface],
    measurements: Measurements,
    volumes: Mapping[str, bytes],
) -> None:
    """Write `report.html` to `folder`.

    `manifest` is that of `vertebral run` without its `outputs`; `files` are the names of the result's other files,
    which the page links; `volumes` are those of `page_volumes`. Raises InputError where the page cannot be written.
    """
    write_page(contents(manifest, files, surfaces, measurements, volumes), folder / REPORT)


def write_page(made: Contents, path: Path) -> None:
    """Write the page as one file that opens without a network. Raises InputError if it cannot be written."""
    with atomic_write(path) as temporary:
        temporary.write_text(page_html(made), encoding="utf-8")


def page_html(made: Contents, urls: Mapping[str, str] | None = None, extra: Mapping[str, Any] | None = None) -> str:
    """Return the page as HTML. Blobs named in `urls` are fetched from there; `extra` facts are for a served page."""
    urls = urls or {}
    facts = {**made.facts, **(extra or {}), "urls": dict(urls)}
    script, style = _static("page.js"), _static("page.css")
    connect = "'self'" if urls else "'none'"
    policy = (
        f"default-src 'none'; script-src '{csp_source(script)}'; style-src '{csp_source(style)}'; img-src data: blob:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=PackageLoader("vertebral.stages.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=f"{made.facts['name']}: vertebral",
        policy=policy,
        disclaimer=made.facts["disclaimer"],
        facts=Markup(_script_json(facts)),
        blobs=[(name, base64.b64encode(data).decode()) for name, data in made.blobs.items() if name not in urls],
        licences=_static("LICENCES.txt"),
        script=Markup(script),
        style=Markup(style),
    )


def read_page(path: Path) -> Contents:
    """Read the contents of a page that `write_page` wrote. Raises ReadError for any other file."""
    try:
        text = path.read_text(encoding="utf-8")
        found = _FACTS.search(text)
        if found is None:
            raise ReadError(f"{path}: not a report.html of `vertebral run`")
        facts = json.loads(found[1])
        blobs = {match[1]: base64.b64decode(match[2], validate=True) for match in _BLOB.finditer(text)}
    except (OSError, ValueError, binascii.Error) as error:
        raise ReadError(f"{path}: not a report.html of `vertebral run` ({error})") from error
    facts.pop("urls", None)
    return Contents(facts, blobs)


def _script_json(value: Any) -> str:
    """Return JSON that an HTML parser cannot mistake for the end of its script, or for a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def csp_source(text: str) -> str:
    """Return the hash source of a script or style with this text, for a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

"""One HTML file: template, style, scripts and data together, without anything from outside."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .runs import gather

WEB = Path(__file__).parent / "web"
SCRIPTS = ("dom.js", "charts.js", "scores.js", "errors.js", "training.js", "samples.js", "timeline.js", "main.js")


def write_report(folders: Sequence[str | Path], out: str | Path, *, videos: int = 200) -> Path:
    """Reads run folders and writes the page; see `gather`."""
    out = Path(out)
    page = render(gather(folders, videos=videos))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, out)
    return out


def render(content: dict[str, Any]) -> str:
    """The page for what `gather` returns."""
    # The parts are put in as they are: HTML escapes would break CSS, JavaScript and JSON, which HTML does not unescape
    # within <style> and <script>.
    environment = Environment(
        loader=FileSystemLoader(WEB), autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True
    )
    # A name such as "</script>" in the data would end the script element that holds them. "\u003c" is "<" to a JSON
    # parser, but not to an HTML parser.
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("page.html").render(
        style=(WEB / "style.css").read_text(encoding="utf-8"),
        scripts="\n".join((WEB / name).read_text(encoding="utf-8") for name in SCRIPTS),
        data=data,
    )

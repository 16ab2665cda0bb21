"""Renders the report as one HTML file that contains template, style, scripts and data and loads nothing else."""

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
    """Reads run folders (see `gather`) and writes the page; returns its path."""
    out = Path(out)
    page = render(gather(folders, videos=videos))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, out)
    return out


def render(content: dict[str, Any]) -> str:
    """The page with the content that `gather` returns."""
    # No autoescape: browsers do not unescape HTML within <style> and <script>, so escapes would break CSS, JavaScript
    # and JSON.
    environment = Environment(
        loader=FileSystemLoader(WEB), autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True
    )
    # A name such as "</script>" in the data would end the script element. JSON parsers read "\u003c" as "<", HTML
    # parsers do not.
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("page.html").render(
        style=(WEB / "style.css").read_text(encoding="utf-8"),
        scripts="\n".join((WEB / name).read_text(encoding="utf-8") for name in SCRIPTS),
        data=data,
    )

"""One HTML file: template, style, scripts and data together, without anything from outside."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    # "<" never ends a script element early, and the data stay JSON
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = (WEB / "page.html").read_text(encoding="utf-8")
    scripts = "\n".join((WEB / name).read_text(encoding="utf-8") for name in SCRIPTS)
    for mark, text in (("STYLE", (WEB / "style.css").read_text(encoding="utf-8")), ("SCRIPT", scripts), ("DATA", data)):
        page = page.replace(f"<!--{mark}-->", text)
    return page

"""Findings of a data check, and their table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd

LEVELS = ("error", "warning", "note")


@dataclass
class Finding:
    """One kind of problem, with every place where it was found."""

    level: str
    kind: str  # a short name, such as "missing-file"
    advice: str
    places: list[tuple[str, str]] = field(default_factory=list)  # (video, class or file; what is wrong)


class Findings:
    """Collects findings by kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, Finding] = {}

    def add(self, level: str, kind: str, where: str, what: str, *, advice: str = "") -> None:
        self._kinds.setdefault(kind, Finding(level, kind, advice)).places.append((where, what))

    def __iter__(self) -> Iterator[Finding]:
        """Errors first, then warnings, then notes; within a level in order of discovery."""
        return iter(sorted(self._kinds.values(), key=lambda finding: LEVELS.index(finding.level)))

    def __contains__(self, kind: str) -> bool:
        return kind in self._kinds

    def __getitem__(self, kind: str) -> Finding:
        return self._kinds[kind]

    def count(self, level: str) -> int:
        """Number of kinds of problems at this level."""
        return sum(finding.level == level for finding in self)

    def table(self) -> pd.DataFrame:
        """One row per kind: `level`, `check`, `count`, `where` (the first place), `what`, `advice`."""
        rows = [
            [f.level, f.kind, len(f.places), f.places[0][0], f.places[0][1], f.advice]
            for f in self
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["level", "check", "count", "where", "what", "advice"])

    def to_list(self) -> list[dict[str, object]]:
        """All findings with all places, for JSON."""
        return [
            {
                "level": f.level, "check": f.kind, "count": len(f.places), "advice": f.advice,
                "places": [{"where": where, "what": what} for where, what in f.places],
            }
            for f in self
        ]  # fmt: skip

    def format(self) -> str:
        """The table as text: one line per kind with its first place, and the advice below it."""
        if not self._kinds:
            return "no findings"
        width = max(len(finding.kind) for finding in self)
        lines = [f"{'level':8} {'check':{width}} {'count':>6}  first place"]
        for f in self:
            where, what = f.places[0]
            lines.append(f"{f.level:8} {f.kind:{width}} {len(f.places):6d}  {where}: {what}")
            lines += [f"{'':{17 + width}}-> {f.advice}"] if f.advice else []
        return "\n".join(lines)


@dataclass
class DataCheck:
    """Result of `check_data`: findings, facts (name -> text) and tables."""

    findings: Findings
    facts: dict[str, str] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # by title

    def format(self) -> str:
        parts = [self.findings.format()]
        parts += [f"{title}\n{table.to_string(float_format='%.4g')}" for title, table in self.tables.items()]
        if self.facts:
            parts.append("\n".join(f"{name}: {value}" for name, value in self.facts.items()))
        counts = [f"{n} {level}{'' if n == 1 else 's'}" for level in LEVELS for n in [self.findings.count(level)]]
        return "\n\n".join([*parts, ", ".join(counts)])

    def to_dict(self) -> dict[str, object]:
        tables = {title: table.reset_index().to_dict(orient="records") for title, table in self.tables.items()}
        return {"findings": self.findings.to_list(), "facts": self.facts, "tables": tables}

"""Names of the semi-supervised methods."""

from __future__ import annotations

import difflib

LABELED_ONLY = "labeled_only"  # no pseudo labels at all: the baseline
ORACLE = "oracle_class"  # uses hidden labels: a diagnostic
PARTITIONING = ("nt_negative", "nt")  # learn from non-target classes
METHODS = (LABELED_ONLY, "target", "nt_negative", "nt", "soft", "complementary", ORACLE)


def check_method(name: str) -> None:
    """Raises ValueError, which lists the known methods, on any other name."""
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"method '{name}' is not one of {list(METHODS)}{hint}")

"""Names of the semi-supervised methods; a name with a dot is a module of yours."""

from __future__ import annotations

import difflib
import importlib.util

LABELED_ONLY = "labeled_only"  # no pseudo labels at all: the baseline
ORACLE = "oracle_class"  # uses hidden labels: a diagnostic
PARTITIONING = ("nt_negative", "nt")  # learn from non-target classes
METHODS = (LABELED_ONLY, "target", "nt_negative", "nt", "soft", "complementary", ORACLE)


def check_method(name: str) -> None:
    """Raises ValueError, which lists the known methods, on any other name that is not that of a module (with a dot)."""
    if "." in name:
        try:
            found = importlib.util.find_spec(name)
        except ImportError:
            found = None
        if found is None:
            raise ValueError(f"method '{name}': there is no such module; its folder must be on PYTHONPATH, or current")
    elif name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"method '{name}' is not one of {list(METHODS)}{hint}")

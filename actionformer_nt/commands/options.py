"""Options and parsers that several commands share."""

from __future__ import annotations

import argparse
import math


def add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="override a key of the configuration, such as train_cfg.droppath=0.2 (may be repeated)",
    )  # fmt: skip


def add_absent_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--absent-labels", choices=("reference", "drop"), default="reference",
        help="predicted labels that no event has: keep ActionFormer's numbering, in which they can land on another "
        "class, or drop them",
    )  # fmt: skip


def positive(text: str) -> int:
    """Argument type: a whole number from 1 on."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    return int(text)


def parse_numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} '{text}': expected numbers such as 0.1,0.2") from None


def parse_tiou(text: str) -> list[float]:
    """ "0.3:0.7:0.1" (end included) or "0.3,0.5" -> list of tIoU thresholds."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        start, stop, step = (float(part) for part in text.split(":"))
        count = math.floor((stop - start) / step + 1e-6) + 1
        if count < 1:
            raise ValueError
        return [round(start + i * step, 10) for i in range(count)]
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(
            f"--tiou '{text}': expected START:STOP:STEP such as 0.3:0.7:0.1, or numbers such as 0.5,0.75"
        ) from None

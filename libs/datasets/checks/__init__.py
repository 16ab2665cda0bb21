"""Checks of a data set: annotations, feature files, their timing, and whether a pyramid suits the events."""

from .check import check_data
from .findings import DataCheck

__all__ = ["DataCheck", "check_data"]

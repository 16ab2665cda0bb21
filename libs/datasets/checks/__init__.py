"""Checks of a data set: annotations, feature files, their timing, and the pyramid's regression ranges."""

from .check import check_data
from .findings import DataCheck

__all__ = ["DataCheck", "check_data"]

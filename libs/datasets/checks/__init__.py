"""Checks of a data set: annotations, feature files, their timing, and whether a pyramid suits the events."""

from .check import DataCheck, check_data

__all__ = ["DataCheck", "check_data"]

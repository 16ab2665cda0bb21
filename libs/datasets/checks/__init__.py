"""Checks of a data set: annotations, feature files, their timing, and whether a pyramid suits the events."""

from .check import DataReport, check_data

__all__ = ["DataReport", "check_data"]

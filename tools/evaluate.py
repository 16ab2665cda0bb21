"""Evaluates a result file: python tools/evaluate.py RESULTS.json --annotations A.json --split test."""

import sys

from actionformer_nt.commands import evaluate as command
from actionformer_nt.commands.main import tool

if __name__ == "__main__":
    sys.exit(tool(command))

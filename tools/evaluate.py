"""The benchmark evaluation on its own: python tools/evaluate.py RESULTS.json --annotations A.json --split test."""

import sys

from actionformer_nt.cli import tool
from actionformer_nt.commands import evaluate as command

if __name__ == "__main__":
    sys.exit(tool(command))

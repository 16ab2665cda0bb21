"""The benchmark evaluation on its own: python tools/evaluate.py RESULTS.json --annotations A.json --split test."""

import sys

from actionformer_nt.cli import add_evaluate_arguments, tool

if __name__ == "__main__":
    sys.exit(tool(add_evaluate_arguments, __doc__))

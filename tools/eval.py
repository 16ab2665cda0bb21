"""Evaluates a checkpoint: python tools/eval.py CONFIG CKPT [-epoch N] [-t K] [--saveonly] [--weights ema|raw]."""

import sys

from actionformer_nt.cli import add_eval_arguments, tool

if __name__ == "__main__":
    sys.exit(tool(add_eval_arguments, __doc__))

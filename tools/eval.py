"""Evaluates a checkpoint: python tools/eval.py CONFIG CKPT [-epoch N] [-t K] [--saveonly] [--weights ema|raw]."""

import sys

from actionformer_nt.commands import eval as command
from actionformer_nt.commands.main import tool

if __name__ == "__main__":
    sys.exit(tool(command))

"""Trains a detector: python tools/train.py CONFIG --output NAME [--resume CKPT]."""

import sys

from actionformer_nt.commands import train as command
from actionformer_nt.commands.main import tool

if __name__ == "__main__":
    sys.exit(tool(command))

"""Trains a detector: python tools/train.py CONFIG --output NAME [--resume CKPT]."""

import sys

from actionformer_nt.cli import tool
from actionformer_nt.commands import train as command

if __name__ == "__main__":
    sys.exit(tool(command))

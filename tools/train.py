"""Trains a detector: python tools/train.py CONFIG --output NAME [--resume CKPT]."""

import sys

from actionformer_nt.cli import add_train_arguments, tool

if __name__ == "__main__":
    sys.exit(tool(add_train_arguments, __doc__))

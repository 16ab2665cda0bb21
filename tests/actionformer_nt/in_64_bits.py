"""Runs a script in 64 bits: python in_64_bits.py SCRIPT ARGUMENTS."""

import runpy
import sys

import torch

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double  # also where the code asks for 32
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")

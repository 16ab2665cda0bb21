"""The detector: configuration, data, model and training loops, under ActionFormer's names."""

from .core.threads import wait_passively

wait_passively()  # before anything loads torch

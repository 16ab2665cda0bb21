"""The detector: configuration, data, model and training loops, under ActionFormer's names."""

from libs.core.threads import choose_waiting

choose_waiting()  # before anything loads torch

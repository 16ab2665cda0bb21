"""Mixed precision: `train_cfg.amp`."""

from __future__ import annotations

import torch

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, amp: str) -> torch.autocast:
    """Context in which matrix products run with 16 bits; `amp`: "off", "bf16" or "fp16"."""
    return torch.autocast(device.type, dtype=AMP_TYPES.get(amp), enabled=amp != "off")

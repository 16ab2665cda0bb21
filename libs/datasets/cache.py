"""A cache of arrays, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np


class ArrayCache:
    """Keeps arrays until they are `size` bytes together; then the one that was not asked for the longest goes first.

    Arrays come back read-only: whoever changes one needs a copy.
    """

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0
        self._arrays: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, key: str) -> np.ndarray | None:
        if key in self._arrays:
            self._arrays.move_to_end(key)
        return self._arrays.get(key)

    def put(self, key: str, array: np.ndarray) -> None:
        """An array larger than the cache is not kept."""
        if array.nbytes > self.size or key in self._arrays:
            return
        array.flags.writeable = False
        self._arrays[key] = array
        self.used += array.nbytes
        while self.used > self.size:
            self.used -= self._arrays.popitem(last=False)[1].nbytes

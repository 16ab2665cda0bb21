"""`actionformer-nt report`: makes one self-contained HTML page from run folders.

`runs.py` reads a run folder, `evaluations.py` and `timelines.py` its evaluations and detections; `page.py` fills the
templates in `web/`.
"""

from .page import write_report
from .runs import gather

__all__ = ["gather", "write_report"]

"""`actionformer-nt report`: run folders -> one page that needs nothing else.

`runs.py` reads a folder, `evaluations.py` and `timelines.py` what is in it, `page.py` puts it all into `web/`.
"""

from .page import write_report
from .runs import gather

__all__ = ["gather", "write_report"]

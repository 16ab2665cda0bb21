"""`python -m actionformer_nt` is the command `actionformer-nt`."""

import sys

from .commands.main import main

sys.exit(main())

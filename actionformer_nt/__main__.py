"""`python -m actionformer_nt` is the command `actionformer-nt`."""

import sys

from actionformer_nt.commands.main import main

sys.exit(main())

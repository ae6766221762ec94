"""``python -m speechbrain_hyperbolic`` is the command ``sb-hyperbolic``."""

import sys

from speechbrain_hyperbolic.cli import main

sys.exit(main())

"""`python -m jobs.signals` is `mlm-filter signals`."""

import sys

from .job import main

sys.exit(main())

"""`python -m jobs.export` is `mlm-filter export`."""

import sys

from .job import main

sys.exit(main())

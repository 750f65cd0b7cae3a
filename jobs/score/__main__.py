"""`python -m jobs.score` is `mlm-filter score`."""

import sys

from .job import main

sys.exit(main())

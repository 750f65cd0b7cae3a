"""`python -m jobs.maintain` is `mlm-filter maintain`."""

import sys

from .job import main

sys.exit(main())

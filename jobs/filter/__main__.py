"""`python -m jobs.filter` is `mlm-filter filter`."""

import sys

from .job import main

sys.exit(main())

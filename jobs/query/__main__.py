"""`python -m jobs.query` is `mlm-filter query`."""

import sys

from .job import main

sys.exit(main())

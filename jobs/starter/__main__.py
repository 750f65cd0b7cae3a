"""`python -m jobs.starter` is `mlm-filter starter`."""

import sys

from .job import main

sys.exit(main())

"""`python -m jobs.report` is `mlm-filter report`."""

import sys

from .job import main

sys.exit(main())

"""`python -m jobs.baseline` is `mlm-filter baseline`."""

import sys

from .job import main

sys.exit(main())

"""`python -m jobs.evaluate` is `mlm-filter evaluate`."""

import sys

from .job import main

sys.exit(main())

"""`python -m jobs.quickstart` is `mlm-filter quickstart`."""

import sys

from .job import main

sys.exit(main())

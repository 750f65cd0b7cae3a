"""`python -m jobs.ingest` is `mlm-filter ingest`."""

import sys

from .job import main

sys.exit(main())

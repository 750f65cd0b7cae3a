"""`python -m jobs.views` is `mlm-filter views`."""

import sys

from .job import main

sys.exit(main())

"""`python -m jobs.finetune` is `mlm-filter finetune`."""

import sys

from .job import main

sys.exit(main())

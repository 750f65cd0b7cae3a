"""`python -m jobs` is `mlm-filter`."""

import sys

from .cli import main

sys.exit(main())

"""Entry points of the wheel for schedulers: `mlm-filter-ingest`, `mlm-filter-score` ...

A Databricks python_wheel_task calls the function with the task's parameters in sys.argv and
ignores what it returns: a job that failed has to raise, and one that succeeded must not call exit,
which counts as a failure there.
"""

import sys
from functools import partial

from . import cli


def _run(job: str) -> None:
    code = cli.main([job, *sys.argv[1:]])
    if code:
        sys.exit(code)


evaluate = partial(_run, "evaluate")
finetune = partial(_run, "finetune")
ingest = partial(_run, "ingest")
score = partial(_run, "score")
filter = partial(_run, "filter")
signals = partial(_run, "signals")
export = partial(_run, "export")
report = partial(_run, "report")
maintain = partial(_run, "maintain")

"""The command `mlm-filter`: finds the job by its name and passes it the other arguments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from . import JOBS, OLD_NAMES, __version__
from .core.settings import nearest

_HELP = """\
usage: mlm-filter <job> [--conf FILE] [--option value ...]

Scores pairs of images and captions with a multimodal language model and keeps the best ones.

jobs:
{jobs}

mlm-filter <job> --help    the options of a job
mlm-filter --version       the version

Try it: mlm-filter quickstart"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job and return its exit code; an unknown job gives 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, JOBS))
        jobs = "\n".join(f"  {name:{width}}  {about}" for name, about in JOBS.items())
        print(_HELP.format(jobs=jobs), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    name, *rest = arguments
    if name in ("-V", "--version"):
        print(f"mlm-filter {__version__}")
        return 0
    name = OLD_NAMES.get(name, name)
    if name not in JOBS:
        guess = nearest(name, tuple(JOBS))
        hint = f"did you mean {guess}?" if guess else f"the jobs are {', '.join(JOBS)}"
        print(f"mlm-filter: unknown job {name}; {hint}", file=sys.stderr)
        return 2
    # On demand: --help needs neither Java nor torch.
    job = import_module(f".{name}.job", __package__)
    code: int = job.main(rest)
    return code

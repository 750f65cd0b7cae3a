"""Save the starter model as an ordinary Hugging Face folder, e.g. on a path that all executors see.

mlm-filter starter --output /shared/models/starter
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from udfs.starter import model as starter
from udfs.starter import wheels

from ..core.errors import UsageError
from ..core.job_runner import main as run_job
from ..core.job_runner import say
from ..core.settings import JobConfig


class StarterConfig(JobConfig):
    """Save the small starter model as a Hugging Face folder."""

    output: str = Field(description="folder to create")


def run(spark: Any, config: StarterConfig) -> dict[str, Any]:
    """Copy the assembled model to `output`. Raises UsageError if the folder exists already."""
    target = Path(config.output).expanduser()
    if target.exists():
        raise UsageError(f"--output: {target} exists already")
    if config.dry_run:
        return {"dry_run": True, "output": str(target)}
    try:
        shutil.copytree(starter.ensure(), target)
    except wheels.StarterError as error:
        raise UsageError(str(error)) from None
    say(f"saved {target}; score with: mlm-filter score --model {target} ...")
    return {"output": str(target)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_job("starter", StarterConfig, run, argv)

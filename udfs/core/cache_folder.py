"""Where models and JARs are cached on this machine."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The cache folder: MLM_FILTER_CACHE if set, else mlm-filter in the user's cache folder."""
    if chosen := os.environ.get("MLM_FILTER_CACHE"):
        return Path(chosen).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "mlm-filter"
    return Path.home() / ".cache" / "mlm-filter"

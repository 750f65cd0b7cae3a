"""Lists the files below a folder, through links, each folder once."""

from __future__ import annotations

import os
from collections.abc import Iterator


def walk_files(root: str, broken: bool = False) -> Iterator[str]:
    """Paths of all regular files below `root`, folder by folder in the order of their names, and
    with `broken` also of what is none: broken links, pipes. Raises OSError if a folder cannot be
    read.

    Links to folders are followed; a folder that links lead to again is not read again, so that a
    loop ends. Paths are as one would write them, through the links.
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        info = os.stat(folder)
        if (info.st_dev, info.st_ino) in seen:
            folders.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if broken or os.path.isfile(path):
                yield path


def _refuse(error: OSError) -> None:
    raise error

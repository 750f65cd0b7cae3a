"""Lists the files below a folder, through links, each folder once."""

from __future__ import annotations

import os
from collections.abc import Iterator


def walk_files(root: str) -> Iterator[str]:
    """Paths of all regular files below `root`, in the order of their names; what begins with a dot,
    as tools' own files do, is passed over.

    Links to folders are followed; a folder that links lead to again is not read again, so that a
    loop ends. Paths are as one would write them, through the links.
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        info = os.stat(folder)
        if (info.st_dev, info.st_ino) in seen:
            folders.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path

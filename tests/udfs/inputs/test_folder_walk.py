"""Files below a folder: links are followed, loops end, each file comes once."""

import os
from pathlib import Path

from udfs.inputs.folder_walk import walk_files


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    store, root = tmp_path / "store", tmp_path / "in"
    for folder in (store / "part", root / "a"):
        folder.mkdir(parents=True)
    for file in (store / "part" / "1.jpg", root / "a" / "0.jpg"):
        file.write_bytes(b"x")
    (root / "part").symlink_to(store / "part")
    (root / "2.jpg").symlink_to(store / "part" / "1.jpg")
    (root / "a" / "loop").symlink_to(root)
    (root / "gone.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(root / "pipe.jpg")
    found = [os.path.relpath(path, root) for path in walk_files(str(root))]
    assert found == ["2.jpg", "a/0.jpg", "part/1.jpg"]

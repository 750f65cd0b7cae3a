"""The records of a JSON document: an array, COCO's layout, or an object by file name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ...core.errors import UsageError

MAX_BYTES = 1 << 29
"""Longer documents are refused: the driver holds the whole of one."""

NO_IMAGE_ID = "annotations whose image_id is not among the images"

Record = dict[str, Any]


def is_document(head: str) -> bool:
    """Whether a JSON file that begins with `head` is one document, not a value on each line."""
    first, _, more = head.lstrip().partition("\n")
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return True
    return not more.strip()


def records(text: str, name: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The records of the document `text`, each as a line of JSON, and annotations (in words) that
    belong to no image. `names` are names of columns that tell one record from an object by file
    name. Raises UsageError, which begins with `name`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {error}") from None
    lost: list[str] = []
    if isinstance(document, list):
        found: list[Any] = document
    elif _is_list(document.get("images")) and _is_list(document.get("annotations")):
        found = list(_annotations(document["images"], document["annotations"], lost))
    else:
        lists = [value for value in document.values() if value and _is_list(value)]
        if len(lists) == 1 and all(isinstance(item, dict) for item in lists[0]):
            found = lists[0]
        elif {name.lower() for name in document} & set(names):
            found = [document]
        else:
            found = list(_by_file_name(document))
    return [json.dumps(record) for record in found], lost


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _annotations(images: list[Any], annotations: list[Any], lost: list[str]) -> Iterator[Record]:
    """COCO's annotations, each with the fields of its image (except its id)."""
    by_id = {image.get("id"): image for image in images if isinstance(image, dict)}
    for annotation in annotations:
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if image_id not in by_id:
            lost.append(f"image_id {image_id}")
            continue
        image = {key: value for key, value in by_id[image_id].items() if key != "id"}
        yield image | annotation


def _by_file_name(document: Record) -> Iterator[Record]:
    for name, value in document.items():
        fields = value if isinstance(value, dict) else {"caption": value}
        yield {"file_name": name} | fields

"""Makes rows of the members of a tar's samples, by their names, their bytes and their JSON.

Key and ending of a name are those of `webdataset`: `a.b/12.left.png` is `left.png` of `a.b/12`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from udfs.inputs.image_files import SUFFIXES
from udfs.inputs.image_magic import looks_like_image
from udfs.inputs.images import MAX_BYTES
from udfs.inputs.tar_members import Member, valid_text

MAX_TEXT_BYTES = 64 * 1024 * 1024

COLUMNS = (
    *("uid", "image", "caption", "source_path", "read_error", "key", "url", "metadata"),
    "_left_out",
)

HIDDEN = "hidden members"
NO_ENDING = "members without an ending"
NO_FILE = "links and devices"
FURTHER = {
    "image": "further images of a key (see --image-ending and --key-ends-at)",
    "caption": "further texts of a key (see --caption-ending and --key-ends-at)",
    "metadata": "further JSON of a key (see --key-ends-at)",
}
BESIDE = "texts beside the JSON that --caption-column asks for"
APART = "members that are not next to the others of their key (sort the tar by name)"
NO_TEXT = "captions in JSON that are not text"
NO_UID = "uids in JSON that are not text or number"
NO_SAMPLE = "tars without a sample"

_UNREAD = (
    "cap caption cbor cls csv flac heic html mp3 mp4 npy npz pickle pkl pt pth pyd svg txt wav "
    "webm xml"
)
_OTHER_UNREAD = "members with another ending (see --image-ending and --caption-ending)"

_ENDING_REASONS = {e: f"members ending in .{e}" for e in (*_UNREAD.split(), *SUFFIXES)}

_HIDDEN_NAMES = re.compile(r"__[^/]*__($|/)")  # webdataset's own notes
_CAPTION_FIELDS = ("caption", "text", "captions")


@dataclass(frozen=True)
class Naming:
    """How members' names and JSON are understood.

    Attributes:
        image_endings: endings of images, such as `img` or `left.png`; none: the usual ones, and
            what begins like an image.
        caption_endings: endings of texts.
        last_dot: whether a key ends at the last dot of the file name, not at the first.
        caption_field: the field of the JSON that has the caption; None: a text, or else a usual
            field.
        uid_field: the field of the JSON that has the uid; None: `uid`, if there is one.
    """

    image_endings: tuple[str, ...] = ()
    caption_endings: tuple[str, ...] = ("txt",)
    last_dot: bool = False
    caption_field: str | None = None
    uid_field: str | None = None


class Part(NamedTuple):
    """What a name says of a member; `column` is that of its bytes in a row, or None."""

    key: str
    ending: str
    column: str | None
    by_bytes: bool = False


def part_of(member: Member, naming: Naming) -> Part | str:
    """The part of a sample that a member is, or the reason why it is none."""
    if not member.is_file:
        return NO_FILE
    name = member.name
    folder, slash, base = name.rpartition("/")
    if base.startswith(".") or _HIDDEN_NAMES.match(name):
        return HIDDEN
    stem, dot, ending = base.rpartition(".") if naming.last_dot else base.partition(".")
    if not dot:
        if naming.image_endings or not looks_like_image(member.head()):
            return NO_ENDING
        return Part(name, "", "image", by_bytes=True)
    ending = ending.lower()
    column = _column(ending, naming)
    by_bytes = column is None and not naming.image_endings and looks_like_image(member.head())
    return Part(folder + slash + stem, ending, "image" if by_bytes else column, by_bytes)


@functools.lru_cache(maxsize=4096)
def _column(ending: str, naming: Naming) -> str | None:
    def is_one_of(endings: Iterable[str]) -> bool:
        return ending in endings or ending.endswith(tuple(f".{one}" for one in endings))

    if is_one_of(["json"]):
        return "metadata"
    if is_one_of(naming.image_endings or SUFFIXES):
        return "image"
    return "caption" if is_one_of(naming.caption_endings) else None


def left_out(reason: str, tar: str, name: str | None = None) -> dict[str, Any]:
    """The row that says that a member of a tar, or the tar, is left out."""
    example = tar if name is None else f"{tar}#{name}"
    return dict.fromkeys(COLUMNS) | {"_left_out": {"reason": reason, "example": example}}


@dataclass(slots=True)
class _Held:
    name: str
    data: bytes | None
    rank: tuple[bool, bool]


@dataclass(slots=True)
class Sample:
    """Members of one key that stand next to each other in a tar, and what is left out of them.

    Of several images (texts, JSON) the first counts, but an ending like `png` before one like
    `seg.png`, an image by its ending before one by its bytes, and a text before an empty one.

    Attributes:
        tar: path of the tar.
        key: as in `Part`.
        offset: of the first member's bytes in the unpacked tar.
        held: the members that make the row, by column.
        unused: reason and name of each other member.
        unused_fields: the same for what the last call of `row` left out of the JSON.
        read_error: why a member has not been read.
    """

    tar: str
    key: str
    offset: int = 0
    held: dict[str, _Held] = field(default_factory=dict)
    unused: list[tuple[str, str]] = field(default_factory=list)
    unused_fields: list[tuple[str, str]] = field(default_factory=list)
    read_error: str | None = None

    def add(self, member: Member, part: Part) -> None:
        """Add a member; raises READ_ERRORS."""
        column = part.column
        if column is None:
            last = part.ending.rpartition(".")[2]
            self.unused.append((_ENDING_REASONS.get(last, _OTHER_UNREAD), member.name))
            return
        held = self.held.get(column)
        rank = (not part.by_bytes, "." not in part.ending)
        if column == "image" and held is not None and held.rank >= rank:
            self.unused.append((FURTHER[column], member.name))
            return
        data = None
        if member.size > (MAX_BYTES if column == "image" else MAX_TEXT_BYTES):
            self.read_error = f"{member.name} has {member.size} bytes, too many to read"
        else:
            data = member.read()
        if column == "caption":
            rank = (bool(data and data.strip()), rank[1])
        self._hold(column, _Held(member.name, data, rank))

    def _hold(self, column: str, new: _Held) -> None:
        held = self.held.get(column)
        if held is not None and held.rank >= new.rank:
            self.unused.append((FURTHER[column], new.name))
            return
        if held is not None:
            self.unused.append((FURTHER[column], held.name))
        self.held[column] = new

    def join(self, texts: Sample) -> None:
        """Add texts and JSON of the same key that stand elsewhere in the tar."""
        for column, held in texts.held.items():
            self._hold(column, held)
        self.unused.extend(texts.unused)
        self.read_error = self.read_error or texts.read_error

    def forget_texts(self) -> None:
        """Drop the texts and JSON, which a sample with the same texts accounts for."""
        self.held.clear()
        self.unused = [item for item in self.unused if item[0] not in FURTHER.values()]

    def leave_out_all(self, reason: str) -> None:
        """Leave out all members that the row would have."""
        self.unused.extend((reason, held.name) for held in self.held.values())
        self.unused_fields.clear()
        self.held.clear()

    def rows_left_out(self) -> Iterator[dict[str, Any]]:
        """The rows that say what is left out; after `row`."""
        for reason, name in (*self.unused, *self.unused_fields):
            yield left_out(reason, self.tar, name)

    def row(self, naming: Naming) -> dict[str, Any]:
        """The row of the sample, with caption, uid and url from its JSON too."""
        self.unused_fields.clear()
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        for column, held in self.held.items():
            row[column] = held.data
        image = self.held.get("image")
        row["source_path"] = f"{self.tar}#{image.name}" if image else self.tar
        row["key"] = self.key
        fields = fields_of(row["metadata"])
        if fields is None:
            fields = {}
            row["read_error"] = f"{self.held['metadata'].name} is not JSON"
        row["caption"] = self._captions(row["caption"], fields, naming)
        row["uid"] = self._uid(fields, naming)
        url = fields.get("url")
        row["url"] = valid_text(url) if isinstance(url, str) else None
        row["read_error"] = self.read_error or row["read_error"]
        return row

    def _captions(
        self, text: bytes | None, fields: dict[str, Any], naming: Naming
    ) -> list[bytes | None] | None:
        """The captions, nearly always one: the text, or else those of the JSON."""
        if naming.caption_field is None and text is not None and text.strip():
            return [text]
        names = (naming.caption_field,) if naming.caption_field else _CAPTION_FIELDS
        values = (find(fields, name) for name in names)
        found = next((value for value in values if not _is_blank(value)), None)
        captions: list[bytes | None] = []
        for value in found if isinstance(found, list) else [found]:
            if value is None or isinstance(value, str):
                captions.append(None if value is None else value.encode("utf-8", "replace"))
            else:
                self.unused_fields.append((NO_TEXT, self.held["metadata"].name))
        if naming.caption_field is not None and text is not None:
            self.unused_fields.append((BESIDE, self.held["caption"].name))
            text = None
        if all(caption is None for caption in captions):
            return None if text is None else [text]
        return captions

    def _uid(self, fields: dict[str, Any], naming: Naming) -> str | None:
        uid = find(fields, naming.uid_field or "uid")
        if uid is None or isinstance(uid, str):
            return None if uid is None else valid_text(uid)
        self.unused_fields.append((NO_UID, self.held["metadata"].name))
        return None


def fields_of(data: bytes | None) -> dict[str, Any] | None:
    """The fields of a JSON member; None if it is not JSON. A bare text, or a list, is a caption."""
    if not data:
        return {}
    try:
        fields = _JSON.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    if isinstance(fields, str | list):
        return {_CAPTION_FIELDS[0]: fields}
    return fields if isinstance(fields, dict) else {}


def find(fields: dict[str, Any], name: str) -> Any:
    """The value of a field of this name, if need be in another case; None if there is none."""
    value = fields.get(name)
    if value is None:
        lower = name.lower()
        values = (fields[one] for one in fields if one.lower() == lower)
        value = next((one for one in values if one is not None), None)
    return value


def _is_blank(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_blank, value))
    return value is None or isinstance(value, str) and not value.strip()


# Numbers stay as they are written: an id of 20 digits, or 1.10. NaN is how pandas writes null.
_JSON = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=lambda _: None)

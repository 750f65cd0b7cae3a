"""Tells an image by its first bytes, whatever its name is."""

import re

HEAD_BYTES = 16
"""How many of a file's first bytes `looks_like_image` needs."""

_MAGIC = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|GIF8[79]a"
    rb"|RIFF.{4}WEBP"
    rb"|II\*\0|MM\0\*"  # TIFF
    rb"|BM.{4}\0{4}"  # BMP
    rb"|.{4}ftyp(?:avi[fs]|hei[cx]|he[vi][cms]|hevx|mif1|msf1)"  # AVIF, HEIC
    rb"|\0\0\0\x0c(?:jP  |JXL )\r\n\x87\n|\xff\x4f\xff\x51|\xff\x0a"  # JPEG 2000, JPEG XL
    rb"|P[1-6]\s[\s0-9#]"  # PPM
    rb"|\0\0\x01\0[\x01-\x40]\0",  # ICO
    re.DOTALL,
)


def looks_like_image(head: bytes) -> bool:
    """Whether a file that begins with `head` is an image; also HEIC and JPEG XL, which are not read
    but deserve that reason."""
    return bool(_MAGIC.match(head))

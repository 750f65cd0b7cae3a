"""Image files with every kind of damage, and a pattern that the reason for each must match."""

import struct
import zlib

from pictures import encoded, picture


def bomb() -> bytes:
    """A PNG of a few bytes that claims 50,000 x 50,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def broken_tiff() -> bytes:
    data = bytearray(encoded(picture(), "TIFF"))
    data[4:8] = b"\xff\xff\xff\x7f"  # the directory lies far beyond the end
    return bytes(data)


JPEG = encoded(picture(200, 200), "JPEG")
DAMAGED = {
    "null": (None, "null"),
    "empty": (b"", "0 bytes"),
    "truncated_jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "html": (b"<!DOCTYPE html><html>not found</html>", "HTML"),
    "json": (b'{"error": 404}', "JSON"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "pdf": (b"%PDF-1.7 ...", "PDF"),
    "heic": (b"\0\0\0\x18ftypheic" + b"\0" * 100, "HEIC"),
    "mp4": (b"\0\0\0\x18ftypisom" + b"\0" * 100, "a video"),
    "jxl": (b"\xff\x0a" + b"\0" * 100, "JPEG XL"),
    "jxl_container": (b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 100, "JPEG XL"),
    "psd": (b"8BPS\0\x01" + b"\0" * 100, "PSD"),
    "zip": (b"PK\x03\x04" + b"\0" * 100, "ZIP"),
    "bomb": (bomb(), "over the limit"),
    "noise": (bytes(range(256)) * 8, "known format"),
    "header_only": (JPEG[:20], "known format|damaged"),
    "truncated_png": (encoded(picture(99, 99))[:400], "damaged"),
    "broken_tiff": (broken_tiff(), "known format|damaged"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),
}

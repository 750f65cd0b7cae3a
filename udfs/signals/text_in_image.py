"""Text that can be read in a picture, by RapidOCR (PP-OCR models in its wheel, offline).

After T-MARS (arXiv 2307.03132): a caption that merely repeats what is written in the image teaches
a model to read, not to see. Reads Latin letters and Chinese; 0.6 s an image of 400 x 200 pixels on
one core.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from udfs.inputs import captions

if TYPE_CHECKING:
    from PIL.Image import Image

CHARACTERS = 5000  # of a caption and of a picture's text
_SIDE = 960  # pixels of the longer side in which lines are looked for; bounds time and memory
_WORD = re.compile(r"\w+")


def read_text(picture: Image) -> str:
    """The lines of text in an RGB picture, one a line, from the top; "" where there is none."""
    import numpy as np

    found = _reader()(np.asarray(picture)[:, :, ::-1])  # BGR, as OpenCV has it
    return captions.clean("\n".join(found.txts or ()))[:CHARACTERS]


def overlap(text: str, caption: str) -> float | None:
    """The share of a caption's different words that are also in the image's text, 0..1.

    A word is a run of letters and digits, whatever its case. None for a caption without words.
    """
    wanted = _words(caption)
    return len(wanted & _words(text)) / len(wanted) if wanted else None


def _words(text: str) -> set[str]:
    folded = unicodedata.normalize("NFKC", text[:CHARACTERS]).casefold()
    return set(_WORD.findall(folded))


@functools.cache
def _reader() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.log_level": "error",
            "Det.limit_type": "max",  # its default scales thin pictures up without a bound
            "Det.limit_side_len": _SIDE,
            # Spark runs a task a core.
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )

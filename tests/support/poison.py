"""Rows that end, hold or fill the process that works on them.

act("exit")          # what such a row does; "" does nothing
install()            # before the fork: images b"poison exit" act so when they are decoded,
                     # captions "poison exit" when they are in the model
"""

import ctypes
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from udfs.inputs import images
from udfs.scoring.mlm_scorer import Scorer

SIGN = "poison "


def act(kind: str) -> None:
    """Do what the first word of `kind` says; "die:N:PATH" dies N times, which it counts there."""
    name, *words = kind.split(":")
    if name == "exit":
        os._exit(7)
    if name == "segfault":
        ctypes.string_at(0)
    if name == "sleep":
        time.sleep(1000)
    if name == "spin":  # in C, without giving other threads a turn
        re.match("(a+)+$", "a" * 60 + "b")
    if name == "allocate":
        taken = []
        while True:
            taken.append(b"x" * (16 << 20))
            time.sleep(0.01)
    if name == "cuda":
        raise RuntimeError("CUDA error: device-side assert triggered")
    if name == "memory":
        raise MemoryError
    if name == "die":
        path = Path(words[1])
        with path.open("a") as file:
            file.write(".")
        if path.stat().st_size <= int(words[0]):
            os.kill(os.getpid(), signal.SIGKILL)


def install() -> None:
    """Make such rows do it."""
    decode, encode, distributions = images.decode, Scorer._encode, Scorer.distributions
    poisoned: dict[int, str] = {}

    def decode_or_act(data: Any, *args: Any, **options: Any) -> Any:
        if isinstance(data, bytes) and data.startswith(SIGN.encode()):
            act(data.decode().removeprefix(SIGN))
        return decode(data, *args, **options)

    def encode_and_note(self: Scorer, picture: Any, text: str) -> Any:
        encoded = encode(self, picture, text)
        if text.startswith(SIGN):
            poisoned[id(encoded.row)] = text.removeprefix(SIGN)
        return encoded

    def act_or_run(self: Scorer, rows: list[Any], how: str | None = None) -> Any:
        kinds = [poisoned.get(id(row), "") for row in rows]
        if kinds.count("crowd") > 8:
            act("allocate")
        for kind in kinds:
            if kind != "memory" or len(rows) > 1:
                act(kind)
        return distributions(self, rows, how)

    images.decode = decode_or_act
    Scorer._encode = encode_and_note  # type: ignore[method-assign]
    Scorer.distributions = act_or_run  # type: ignore[method-assign]

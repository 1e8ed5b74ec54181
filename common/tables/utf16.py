"""Read UTF-16 text, which a byte-order mark tells from other text, as UTF-8."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import BinaryIO

from common.cli.errors import UserError

CODECS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
CHUNK = 2**16  # bytes that are decoded together


def as_utf8(path: Path, raw: BinaryIO) -> BinaryIO | None:
    """Return a stream of UTF-8 without the byte-order mark; None if there is none of UTF-16."""
    mark = raw.peek(4)[:4]
    if mark[:2] not in CODECS or mark == codecs.BOM_UTF32_LE:
        return None
    raw.read(2)
    return io.BufferedReader(_Utf8(path, raw, CODECS[mark[:2]]), CHUNK)


class _Utf8(io.RawIOBase):
    """UTF-16 as UTF-8; raises ``UserError`` with the line of a character that is none."""

    def __init__(self, path: Path, raw: BinaryIO, codec: str):
        self._path, self._raw, self._codec = path, raw, codec
        self._decoder = codecs.getincrementaldecoder(codec)()
        self._ready, self._line, self._ended = b"", 1, False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self._ready and not self._ended:
            data = self._raw.read(CHUNK)
            self._ended = not data
            try:
                text = self._decoder.decode(data, final=self._ended)
            except UnicodeDecodeError as error:
                line = self._line + error.object[: error.start].decode(self._codec).count("\n")
                raise UserError("text that is not UTF-16", file=self._path, line=line, fix="save it as UTF-8") from None
            self._line += text.count("\n")
            self._ready = text.encode()
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

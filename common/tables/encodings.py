"""Read text that is not UTF-8 as UTF-8: in a named encoding, UTF-16 with a mark, or the Windows encoding of western Europe."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import re
from pathlib import Path
from typing import BinaryIO

from common.cli.arguments import ENCODING
from common.cli.errors import UserError, shown

MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
NAMES = {"utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "windows-1252": "Windows-1252"}
WINDOWS = "windows-1252"
CHUNK = 2**16  # bytes that are decoded together
SCANNED = 2**20  # bytes from the start that tell the encoding
LONGEST_PIECE = 2**24  # bytes of a line that are looked at together
SHORT = 2**12  # bytes of a file that is surely seen as a whole
FEWEST = 2  # lines with letters beyond ASCII, before a file is taken for Windows-1252


def as_utf8(path: Path, raw: BinaryIO) -> tuple[BinaryIO, str | None]:
    """Return a stream of UTF-8 without a byte-order mark of UTF-16, and how the file was read; None if as it is.

    A file is Windows-1252 if at least :data:`FEWEST` of its first lines have letters beyond ASCII and none of these lines is
    UTF-8. So a file in UTF-8 with a few broken lines is read as it is. An encoding that the user names is that of all files that
    are not UTF-8.
    """
    if named := named_encoding():
        return (raw if _is_utf8(path, named) else io.BufferedReader(_Utf8(path, raw, named), CHUNK)), None
    mark = raw.peek(4)[:4]
    if mark[:2] in MARKS and mark != codecs.BOM_UTF32_LE:
        raw.read(2)
        codec = MARKS[mark[:2]]
        return io.BufferedReader(_Utf8(path, raw, codec), CHUNK), "read as UTF-16, as its byte-order mark says"
    if (example := _windows(raw.peek(SCANNED)[:SCANNED])) is not None:
        how = f"read as Windows-1252 text, as in {example}; name its encoding with --encoding if that is wrong"
        return io.BufferedReader(_Utf8(path, raw, WINDOWS), CHUNK), how
    return raw, None


def named_encoding() -> str | None:
    """Return the encoding that the user names, None for none; other processes of a command inherit it."""
    name = os.environ.get(ENCODING)
    try:
        return codecs.lookup(name).name if name else None
    except LookupError:
        raise UserError(
            f"unknown encoding {shown(name)}", key=ENCODING, fix="unset this environment variable"
        ) from None


def _is_utf8(path: Path, named: str) -> bool:
    """Return whether a file is UTF-8 although another encoding is named.

    That is a file with as many lines of UTF-8 beyond ASCII as other ones, or with ASCII only and nothing that the encoding reads
    otherwise.
    """
    if named == "utf-8":
        return True
    right = wrong = 0
    plain = True
    with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as file:
        while piece := file.readline(LONGEST_PIECE):
            if piece.isascii():
                plain = plain and not re.search(rb"[\0\x0e\x0f\x1b]", piece)
            elif _is(piece, "utf-8") or len(piece) == LONGEST_PIECE:
                right += 1
            else:
                wrong += 1
    return plain and right >= wrong


def _windows(head: bytes) -> str | None:
    """Return a word with a letter beyond ASCII from the start of a file that is Windows-1252; None if it is not."""
    whole = head if len(head) < SHORT else head.rpartition(b"\n")[0]  # the last line may end within a letter
    lines = [line for line in whole.splitlines() if not line.isascii()]
    if len(lines) < FEWEST or any(_is(line, "utf-8") for line in lines) or b"\0" in whole:
        return None
    if not all(_is(line, WINDOWS) for line in lines):
        return None
    word = re.search(rb"\w*[\x80-\xff][\w\x80-\xff]*", lines[0])
    return shown(word[0].decode(WINDOWS), 30) if word else None


def _is(line: bytes, codec: str) -> bool:
    try:
        line.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


class _Utf8(io.RawIOBase):
    """Text of another encoding as UTF-8; raises ``UserError`` with the line of a character that is none."""

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
            except UnicodeError as error:
                read = error.object[: error.start] if isinstance(error, UnicodeDecodeError) else b""
                line = self._line + read.count(b"\n")
                problem = f"text that is not {NAMES.get(self._codec, self._codec)}"
                raise UserError(problem, file=self._path, line=line, fix="save it as UTF-8") from None
            self._line += text.count("\n")
            self._ready = text.encode()
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

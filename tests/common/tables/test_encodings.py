"""Text files that are not UTF-8 are read like the text that they are, and the user is told."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.cli.arguments import ENCODING, parse
from common.cli.errors import UserError
from common.tables import reading
from common.tables.reading import read_rows


@pytest.fixture(autouse=True)
def warn_again():
    reading.warn_once.cache_clear()


def values(path: Path) -> list[dict]:
    return [row.values for row in read_rows(path)]


TEXT = "id,post\n1,café\n2,naïve – “so”\n3,plain\n"
ROWS = [{"id": "1", "post": "café"}, {"id": "2", "post": "naïve – “so”"}, {"id": "3", "post": "plain"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "windows-1252"])
@pytest.mark.parametrize("packed", [False, True])
def test_an_encoding_is_recognized_and_reported(tmp_path, capsys, encoding, packed):
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    data = TEXT.encode(encoding)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert values(path) == ROWS
    said = capsys.readouterr().err
    assert ("read as UTF-16" in said) == (encoding == "utf-16")
    assert ("read as Windows-1252 text, as in 'café'; name its encoding with --encoding if that is wrong" in said) == (
        encoding == "windows-1252"
    )


def test_a_file_of_another_encoding_keeps_its_rows_apart_and_its_delimiter(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('id;post\n1;"é, ü\nand ö; ß"\n2;ñ\n'.encode("windows-1252"))
    assert values(path) == [{"id": "1", "post": "é, ü\nand ö; ß"}, {"id": "2", "post": "ñ"}]
    long = "id,post\n" + "".join(f"{n},Übung {n}\n" for n in range(100_000))
    path.write_bytes(long.encode("windows-1252"))
    assert values(path)[-1] == {"id": "99999", "post": "Übung 99999"}
    path.write_bytes(long.encode())
    assert values(path)[-1] == {"id": "99999", "post": "Übung 99999"}


def test_a_few_broken_lines_of_a_file_in_utf_8_stay_broken(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"id,post\n1,caf\xe9\n2,ok\n" + "3,naïve\n".encode() + b"4,\xe9t\xe9\n")
    problems = [row.problem for row in read_rows(path, lenient=True)]
    assert problems == ["byte 0xe9 is not UTF-8", None, None, "byte 0xe9 is not UTF-8"]
    path.write_bytes(b"id,post\n1,caf\xe9\n2,ok\n")
    with pytest.raises(UserError, match="line 2: byte 0xe9 is not UTF-8"):
        values(path)


@dataclass(kw_only=True)
class Options:
    """An example."""


def test_a_named_encoding_is_that_of_all_files_that_are_not_utf_8(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(ENCODING, "")  # undone afterwards
    parse(Options, ["--encoding", "SHIFT-JIS"])
    text = "id,post\n1,猫が好き\n2,犬\n3,plain\n"
    rows = [{"id": "1", "post": "猫が好き"}, {"id": "2", "post": "犬"}, {"id": "3", "post": "plain"}]
    for encoding in ("shift_jis", "utf-8", "utf-8-sig"):
        (tmp_path / "t.csv").write_bytes(text.encode(encoding))
        assert values(tmp_path / "t.csv") == rows, encoding
    assert capsys.readouterr().err == ""
    (tmp_path / "t.csv").write_bytes(text.encode("shift_jis") + b"4,\xff\xff\n")
    with pytest.raises(UserError, match="line 5: text that is not shift_jis"):
        values(tmp_path / "t.csv")
    parse(Options, ["--encoding", "utf-8"])
    (tmp_path / "t.csv").write_bytes(TEXT.encode("windows-1252"))
    with pytest.raises(UserError, match="line 2: byte 0xe9 is not UTF-8"):
        values(tmp_path / "t.csv")
    parse(Options, ["--encoding", "utf-16-le"])
    (tmp_path / "t.csv").write_bytes(TEXT.encode("utf-16-le"))  # without a byte-order mark
    assert values(tmp_path / "t.csv") == ROWS


@pytest.mark.parametrize("name", ["cp99999", "rot13", "base64"])
def test_an_encoding_that_is_none_of_text_is_refused(name):
    with pytest.raises(UserError, match=f"--encoding: unknown encoding '{name}'; expected one that Python knows"):
        parse(Options, ["--encoding", name])


@pytest.mark.parametrize("packed", [False, True])
def test_files_in_utf_8_stay_as_they_are_whatever_encoding_is_named(tmp_path, monkeypatch, packed):
    monkeypatch.setenv(ENCODING, "cp1251")
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")

    def write(data: bytes) -> None:
        path.write_bytes(gzip.compress(data) if packed else data)

    write(("id,post\n" + "1,plain\n" * 200_000 + "2,Übung\n").encode())
    assert values(path)[-1] == {"id": "2", "post": "Übung"}
    write("id,post\n1,Übung\n2,naïve\n".encode() + b"3,\xff\n")
    with pytest.raises(UserError, match="line 4: byte 0xff is not UTF-8"):
        values(path)
    monkeypatch.setenv(ENCODING, "utf-16")
    write(b"id,post\n1,plain\n")
    assert values(path) == [{"id": "1", "post": "plain"}]
    monkeypatch.setenv(ENCODING, "nonsense")
    with pytest.raises(UserError, match="TABLE_ENCODING"):
        values(path)

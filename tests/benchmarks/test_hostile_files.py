"""Peak memory of files that unpack to gigabytes: the files, a child process measured, and the finding."""

from __future__ import annotations

from benchmarks import hostile_files
from benchmarks.hostile_files import FILES, HostileArguments, hostile_finding, measured
from common.results.rendering import lines
from common.tables.reading import read_rows


def test_files_are_small_and_unpack_to_much(tmp_path):
    for filename, write in FILES.values():
        write(tmp_path / filename, 500)
    posts = {name: list(read_rows(tmp_path / name)) for name in ("short.csv", "text.parquet")}
    assert [len(rows) for rows in posts.values()] == [1, 2]
    assert all(len(row.values["post"]) > 9 * 10**6 for row in posts["text.parquet"])
    assert (tmp_path / "text.parquet").stat().st_size < 10**6
    assert (tmp_path / "cell.csv.gz").stat().st_size < 10**6


def test_a_refused_file_is_measured_in_a_process_of_its_own(tmp_path):
    FILES["a cell of 1 GB, gzipped"][1](tmp_path / "cell.csv.gz", 50)
    peak, _, outcome = measured(tmp_path / "cell.csv.gz", "no/adapter", tmp_path / "out.csv")
    assert outcome == "refused"
    assert 10 < peak < 200


def test_the_finding_says_how_much_more_than_a_short_post(monkeypatch):
    peaks = iter([470.0, 60.0, 730.0, 720.0])
    monkeypatch.setattr(hostile_files, "measured", lambda source, adapter, output: (next(peaks), 1.0, "annotated"))
    finding = hostile_finding(HostileArguments(adapter="a", shrink=1000))
    assert "At most 260 MB more than a file with one short post." in "\n".join(lines(finding))

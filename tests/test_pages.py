"""Pages of the committed results in a browser: they fit a telephone, ask nothing of the network, and lead to what they list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.results.finding import FOLDER, read_findings
from common.results.record import read_record
from common.results.rendering import write_report
from tests.browser import DESKTOP, PHONE, beyond_the_edge, needs_browser, opened, picture

ROOT = Path(__file__).parents[1]
RESULTS = sorted(
    {
        path.parent
        for path in (ROOT / "results").glob("*/*.json")
        if not path.parent.name.startswith(("annotation", "export"))
    }
)


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_a_page_reads_well_light_and_dark_wide_and_narrow(folder, tmp_path):
    page = tmp_path / "page.html"
    records = [read_record(path) for path in sorted(folder.glob("*.json"))]
    write_report(records, page, "Results", read_findings(folder / FOLDER))
    for size, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
        with opened(page.as_uri(), size, scheme) as seen:
            picture(seen, f"{folder.name}_{size['width']}_{scheme}")
            assert beyond_the_edge(seen) == []
            style = "getComputedStyle(document.body)"
            ink, paper = (_red(seen.evaluate(f"{style}.{name}")) for name in ("color", "backgroundColor"))
            assert (ink < paper) == (scheme == "light")
            targets = "link => document.querySelectorAll(link.getAttribute('href')).length"
            counts = seen.evaluate(f"[...document.querySelectorAll('nav a')].map({targets})")
            assert set(counts) == {1}


def _red(color: str) -> int:
    return int(re.match(r"rgb\((\d+),", color)[1])

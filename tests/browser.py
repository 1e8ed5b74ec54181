"""Open pages that a command serves in a headless Chromium; tests are skipped without one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1200, "height": 900}
TIMEOUT = 60_000  # milliseconds


def missing() -> str | None:
    """Return why no browser can be used, or None."""
    for name in ("gradio", "playwright"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed"
    return None if CHROMIUM else "Chromium is not installed"


@contextlib.contextmanager
def served(module: str | Path, *words: object, **environment: str) -> Iterator[tuple[str, Any]]:
    """Yield the address of the page that a module or a script serves, and its process; end it with SIGINT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = [str(module)] if isinstance(module, Path) else ["-m", module]
    command = [sys.executable, *script, *map(str, words), "--port", str(port)]
    stderr = tempfile.TemporaryFile("w+")
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "ACCELERATE_USE_CPU": "true", **environment}, stderr=stderr
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, stderr.seek(0) or stderr.read()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=5).close()
                break
            time.sleep(0.2)
        yield address, process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@contextlib.contextmanager
def opened(address: str, size: dict[str, int] = DESKTOP, scheme: str = "light") -> Iterator[Any]:
    """Yield a page in the browser. A request to any other machine is refused and fails the test."""
    from playwright.sync_api import sync_playwright

    foreign: list[str] = []

    def route(call: Any) -> None:
        if call.request.url.startswith((address, "data:", "blob:")):
            call.continue_()
        else:
            foreign.append(call.request.url)
            call.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=size, color_scheme=scheme, accept_downloads=True)
        page.set_default_timeout(TIMEOUT)
        page.route("**/*", route)
        page.goto(address)
        yield page
        browser.close()
    assert foreign == []


needs_browser = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def picture(page: Any, name: str) -> None:
    """Save a screenshot if SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def beyond_the_edge(page: Any) -> list[str]:
    """List the elements that reach beyond the window and make a page scroll sideways."""
    script = """() => document.documentElement.scrollWidth <= window.innerWidth ? [] :
        [...document.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > window.innerWidth + 1)
        .map(e => `${e.tagName}.${e.className} ${Math.round(e.getBoundingClientRect().right)}`).slice(0, 20)"""
    return page.evaluate(script)

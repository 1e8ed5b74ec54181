"""A page on this machine that both projects' apps are: served, private, and gone when it ends."""

from __future__ import annotations

import contextlib
import html
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from common.cli.arguments import option
from common.cli.console import log
from common.cli.errors import UserError

KEPT_SECONDS = 600  # that an upload or a result lies in the temporary folder, at most
LARGEST_UPLOAD = "200mb"
MODEL = {"concurrency_id": "model", "concurrency_limit": 1}  # one at a time: there is one model
STYLE = """
footer {display: none !important}
.gradio-container {max-width: min(60rem, 100vw) !important; margin: 0 auto !important}
.block:has([data-testid="label-output-value"]) [data-testid="block-label"] {position: static; width: fit-content}
.variants {width: 100%; font-size: .875rem; border-collapse: collapse}
.variants th, .variants td {padding: .4rem .6rem .4rem 0 !important; border: solid var(--border-color-primary) !important;
  border-width: 0 0 1px !important; text-align: left; vertical-align: top; overflow-wrap: break-word}
"""  # the third: a question of two lines would lie over the answer below it
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
Given = TypeVar("Given")
_busy: set[Path] = set()  # folders whose files are being worked on


@dataclass(kw_only=True)
class PageArguments:
    """Where the page is."""

    host: str = option("127.0.0.1", "address to listen at; 0.0.0.0 lets the network in, and whoever is on it")
    port: int = option(7860, "port to listen at", minimum=1, maximum=65535)


def require() -> None:
    """Checks that what pages take is installed, before seconds of imports.

    Raises:
        UserError: It is not.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("gradio is not installed", fix="pip install -r requirements-app.txt")


def answering(work: Callable[..., Given]) -> Callable[..., Given]:
    """``work`` for a page: what the user can mend is shown there in its one line."""
    import functools

    import gradio

    @functools.wraps(work)
    def shown(*given: Any) -> Given:
        try:
            return work(*given)
        except UserError as error:
            # The page takes a message for HTML, and it may quote a file.
            if error.file is not None:
                error.file = Path(error.file).name  # not the temporary folder's
            message = html.escape(str(error))
            raise gradio.Error(message, duration=30, title="That did not work", print_exception=False) from None

    return shown


@contextlib.contextmanager
def working(upload: Path) -> Iterator[Path]:
    """An upload under its own name in a folder of its own, kept as long as it is worked on; results go into the folder above.

    Raises:
        UserError: It has been deleted.
    """
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    _busy.add(folder)
    try:
        (folder / "source").mkdir()
        try:
            shutil.copyfile(upload, folder / "source" / upload.name)
        except FileNotFoundError:
            raise UserError("it is not here any more", file=upload.name, fix="upload it again") from None
        yield folder / "source" / upload.name
    finally:
        shutil.rmtree(folder / "source", ignore_errors=True)
        _busy.discard(folder)


def sweep(folder: Path, seconds: float) -> None:
    """Deletes what has lain in a folder for longer than that, save what is worked on."""
    for path in sorted(folder.rglob("*"), reverse=True):  # files before the folders that they are in
        if _busy.isdisjoint([path, *path.parents]):
            with contextlib.suppress(OSError):
                if path.is_dir():
                    path.rmdir()  # only where it is empty
                elif time.time() - path.stat().st_mtime > seconds:
                    path.unlink()


def serve(title: str, build: Callable[[], None], arguments: PageArguments) -> None:
    """Shows the page that ``build`` lays out until Ctrl-C. Uploads lie in a temporary folder that goes with it.

    Raises:
        UserError: The address can't be listened at.
    """
    signal.signal(signal.SIGTERM, _leave)
    for name in ("NO_PROXY", "no_proxy"):  # the library asks the page itself whether it is up
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), *LOOPBACK[:2])))
    with tempfile.TemporaryDirectory(prefix="app-", ignore_cleanup_errors=True) as name:
        os.environ["GRADIO_TEMP_DIR"] = name
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        import gradio

        # The library's own theme fetches its fonts from a third party.
        theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        with gradio.Blocks(title=title, analytics_enabled=False) as page:
            build()
        try:
            _, address, _ = page.launch(
                server_name=arguments.host,
                server_port=arguments.port,
                share=False,  # a hosted notebook would open a tunnel by itself
                run_history=False,
                mcp_server=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                max_file_size=LARGEST_UPLOAD,
                footer_links=[],
                theme=theme,
                css=STYLE,
                app_kwargs=_only_local(arguments.host),
            )
        except OSError as error:
            raise UserError(
                f"{arguments.host}:{arguments.port} can't be listened at",
                key="--port",
                fix="choose another --port, or end what listens there",
            ) from error
        log(f"the page is at {address} (Ctrl-C ends it)", always=True)
        threading.Thread(target=_sweep_always, args=(Path(name),), daemon=True).start()
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)


def _only_local(host: str) -> dict[str, Any]:
    """Where only this machine is let in, a site elsewhere whose name is made to mean this machine is not let in either."""
    if host not in LOOPBACK:
        return {}
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return {"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))]}


def _sweep_always(folder: Path) -> None:
    while folder.is_dir():
        time.sleep(KEPT_SECONDS / 20)
        sweep(folder, KEPT_SECONDS)


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)

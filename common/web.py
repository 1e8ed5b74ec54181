"""Serve a private page on this machine, for both projects' apps; uploads are gone when it ends."""

from __future__ import annotations

import contextlib
import functools
import html
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
from typing import Any, TypeVar

from common.cli.arguments import option
from common.cli.console import log
from common.cli.errors import UserError, printable

KEPT_SECONDS = 600  # how long an upload or a result stays in the temporary folder, at most
LARGEST_UPLOAD = "200mb"
MODEL = {"concurrency_id": "model", "concurrency_limit": 1}  # one request at a time: there is one model
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
IN_A_SPACE = (
    "**This page is a Hugging Face Space.** What you type or upload is sent to a machine of Hugging Face. For texts that must not "
    "leave your machine, run the page there."
)
Result = TypeVar("Result")
_busy: set[Path] = set()  # folders in use


@dataclass(kw_only=True)
class PageArguments:
    """Where the page is served."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 lets everybody on the network in")
    port: int = option(7860, "port to listen on", minimum=1, maximum=65535)


def answering(work: Callable[..., Result]) -> Callable[..., Result]:
    """Wrap ``work`` for a page, which then shows user errors in one line."""
    import gradio

    @functools.wraps(work)
    def answer(*given: Any) -> Result:
        try:
            return work(*given)
        except UserError as error:
            if error.file is not None:
                error.file = Path(error.file).name  # without the temporary folder
            message = html.escape(str(error))  # the page renders HTML, and the message may quote a file
            raise gradio.Error(message, duration=30, title="That did not work", print_exception=False) from None
        except Exception as error:  # of ours: gradio prints it in the terminal, and would tell the page nothing
            message = "this failed unexpectedly; the terminal that serves the page shows why"
            raise gradio.Error(message, duration=30, title="That did not work") from error

    return answer


def checking(preprocess: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a page's ``preprocess_data``: a value that an input can't take is refused in one line, not as ``{"error": null}``."""
    import gradio

    @functools.wraps(preprocess)
    async def checked(*given: Any, **named: Any) -> Any:
        try:
            return await preprocess(*given, **named)
        except gradio.Error as error:  # of gradio: it may quote the value
            error.message, error.print_exception = html.escape(printable(str(error.message))), False
            raise
        except Exception as error:
            log(f"a request was refused: {error}")
            message = "a value of the wrong type or not enough values; expected what /gradio_api/info describes"
            raise gradio.Error(message, duration=30, title="That did not work", print_exception=False) from None

    return checked


@contextlib.contextmanager
def working(upload: Path) -> Iterator[Path]:
    """Copy an upload into its own folder for the time of the block; results go into the folder above."""
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    _busy.add(folder)
    try:
        (folder / "source").mkdir()
        try:
            shutil.copyfile(upload, folder / "source" / upload.name)
        except FileNotFoundError:
            raise UserError("the upload has expired", file=upload.name, fix="upload it again") from None
        yield folder / "source" / upload.name
    finally:
        shutil.rmtree(folder / "source", ignore_errors=True)
        _busy.discard(folder)


def sweep(folder: Path, seconds: float) -> None:
    """Delete files older than that in a folder, except those in use."""
    for path in sorted(folder.rglob("*"), reverse=True):  # files before the folders that they are in
        if _busy.isdisjoint([path, *path.parents]):
            with contextlib.suppress(OSError):
                if path.is_dir():
                    path.rmdir()  # fails unless it is empty
                elif time.time() - path.stat().st_mtime > seconds:
                    path.unlink()


def laid_out(title: str, build: Callable[[], None]) -> Any:
    """Return the page that ``build`` lays out."""
    import gradio

    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        if "SPACE_ID" in os.environ:
            gradio.Markdown(IN_A_SPACE)
        build()
    page.preprocess_data = checking(page.preprocess_data)
    return page


def serve(title: str, build: Callable[[], None], arguments: PageArguments) -> None:
    """Serve the page that ``build`` lays out until Ctrl-C, with uploads in a temporary folder."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    for name in ("NO_PROXY", "no_proxy"):  # gradio asks the page itself whether it is up
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), *LOOPBACK[:2])))
    with tempfile.TemporaryDirectory(prefix="app-", ignore_cleanup_errors=True) as name:
        os.environ["GRADIO_TEMP_DIR"] = name
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        import gradio

        # Gradio's default theme fetches its fonts from a third party.
        theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        page = laid_out(title, build)
        try:
            _, address, _ = page.launch(
                server_name=arguments.host,
                server_port=arguments.port,
                share=False,  # hosted notebooks would open a tunnel
                run_history=False,
                mcp_server=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                max_file_size=LARGEST_UPLOAD,
                footer_links=[],
                theme=theme,
                css=Path(__file__).with_suffix(".css").read_text(encoding="utf-8"),
                app_kwargs=_only_local(arguments.host),
            )
        except OSError as error:
            fix = "choose another --port, or stop the program that uses it"
            raise UserError(f"cannot listen on {arguments.host}:{arguments.port}", key="--port", fix=fix) from error
        log(f"the page is at {address} (Ctrl-C ends it)", always=True)
        threading.Thread(target=_sweep_forever, args=(Path(name),), daemon=True).start()
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)


def _only_local(host: str) -> dict[str, Any]:
    """Refuse requests to a local page under any other host name, such as a remote site's that resolves to this machine."""
    if host not in LOOPBACK:
        return {}
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return {"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))]}


def _sweep_forever(folder: Path) -> None:
    while folder.is_dir():
        time.sleep(KEPT_SECONDS / 20)
        sweep(folder, KEPT_SECONDS)

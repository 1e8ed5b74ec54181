"""Retry requests to a failing Hub, with a limit, and tell its outages from refusals."""

from __future__ import annotations

import datetime
import email.utils
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from common.cli.console import duration, log
from common.cli.errors import UserError, causes

TRIES = 6
FIRST_PAUSE = 2.0  # seconds; each pause is twice the one before
LONGEST_WAIT = 600.0  # seconds of pauses in total; the Hub's rate limits count requests in windows of 300
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # status codes that may differ on the next try
CHANGED = 412  # the branch has moved: perhaps by our own commit, if the response to it was lost
CONNECT, READ = 10.0, 60.0  # seconds without a connection or a response that count as an outage
NETWORK_ERRORS = (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError)

Result = TypeVar("Result")


class HubFailed(UserError):
    """The Hub failed, not the user: the same command, run later, finishes the work."""

    exit_status = os.EX_TEMPFAIL  # 75


@dataclass(frozen=True)
class Outage:
    """A failure of the Hub, as opposed to a refusal."""

    what: str
    retry_after: float | None = None  # seconds that the Hub asks to wait
    passing: bool = True  # False where the Hub was never reached, so waiting is unlikely to help

    def error(self, name: object, tries: int = 1) -> HubFailed:
        """Return the error that ends a command after so many tries."""
        from huggingface_hub import constants

        if not self.passing:
            fix = "check the network and HF_ENDPOINT"
            return HubFailed(f"cannot reach {constants.ENDPOINT}", file=str(name), fix=fix)
        times = f", {tries} times" if tries > 1 else ""
        wait = f", and asks to wait {duration(self.retry_after)}" if self.retry_after else ""
        fix = "try again later: the same command continues where this one stopped"
        return HubFailed(f"{self.what}{times}{wait}", file=str(name), fix=fix)


def with_retries(work: Callable[[], Result], name: object) -> Result:
    """Call ``work`` until the Hub answers it, printing a line before each pause.

    ``work`` must begin by looking at what exists: after a lost response nobody knows whether a request took effect.

    Raises:
        HubFailed: The Hub failed :data:`TRIES` times, or asks to wait beyond :data:`LONGEST_WAIT`.
    """
    import tenacity

    def outage(state: Any) -> Outage | None:
        error = state.outcome.exception()
        return outage_in(error) if isinstance(error, Exception) else None

    def give_up(state: Any) -> bool:
        too_long = state.idle_for + state.upcoming_sleep > LONGEST_WAIT
        return state.attempt_number == TRIES or too_long or not outage(state).passing

    def announce(state: Any) -> None:
        pause, number = duration(state.upcoming_sleep), state.attempt_number + 1
        log(f"{outage(state).what}; retrying in {pause} (try {number} of {TRIES}; Ctrl-C stops)")

    def fail(state: Any) -> None:
        raise outage(state).error(name, state.attempt_number) from state.outcome.exception()

    return tenacity.Retrying(
        retry=lambda state: outage(state) is not None,
        wait=lambda state: max(FIRST_PAUSE * 2 ** (state.attempt_number - 1), outage(state).retry_after or 0.0),
        stop=give_up,
        before_sleep=announce,
        retry_error_callback=fail,
        sleep=time.sleep,
    )(work)


def outage_in(error: BaseException) -> Outage | None:
    """Return the outage behind an error; None for refusals and everything else."""
    for cause in causes(error):
        if isinstance(cause, HubOutage):
            return cause.outage
        if isinstance(cause, OfflineModeIsEnabled):
            return None
        if isinstance(cause, HfHubHTTPError):
            return _outage_of(cause.response)
        if isinstance(cause, NETWORK_ERRORS):
            return Outage(f"cannot reach the Hub ({type(cause).__name__})")
    return None


def _outage_of(response: httpx2.Response) -> Outage | None:
    if response.status_code not in (*TRANSIENT, CHANGED):
        return None
    message = response.headers.get("X-Error-Message") or response.reason_phrase
    where = f"{response.request.method} {response.request.url.path}"  # without the query, which may hold a key
    return Outage(f"the Hub answered {response.status_code} ({message}) to {where}", _retry_after(response))


def _retry_after(response: httpx2.Response) -> float | None:
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (then - datetime.datetime.now(then.tzinfo)).total_seconds())


class HubOutage(HfHubHTTPError):
    """An outage as huggingface_hub knows errors: it falls back to the cache and does not retry by itself."""

    def __init__(self, outage: Outage, response: httpx2.Response):
        super().__init__(outage.what, response=response)
        self.outage = outage


class Client(httpx2.Client):
    """An HTTP client that sets timeouts and raises :class:`HubOutage`."""

    reached = False  # by any request of this process

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        limits = {"connect": CONNECT, "read": READ, "write": READ, "pool": READ}
        given = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = limits | {name: value for name, value in given.items() if value is not None}
        if stream:  # downloads, which huggingface_hub resumes by itself
            return super().send(request, stream=True, **options)
        try:
            response = super().send(request, **options)
        except NETWORK_ERRORS as error:
            what = "did not answer" if isinstance(error, httpx2.TimeoutException) else "closed the connection"
            where = f"{request.method} {request.url.path}"  # without the query: that of an upload holds a key
            passing = Client.reached or not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            outage = Outage(f"the Hub {what} ({where})", passing=passing)
            raise HubOutage(outage, httpx2.Response(504, request=request)) from error
        Client.reached = True
        if outage := _outage_of(response):
            raise HubOutage(outage, response)
        return response


@functools.cache
def use_retrying_client() -> None:
    """Send this process's requests to the Hub through :class:`Client` from now on."""
    from huggingface_hub import get_session, set_client_factory

    hooks = get_session().event_hooks  # they honor HF_HUB_OFFLINE, among others
    set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True, timeout=None))

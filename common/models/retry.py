"""Patience with a Hub that fails: its failures told apart from refusals, and a limit to trying again."""

from __future__ import annotations

import datetime
import email.utils
import functools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import hf_request_event_hook

from common.cli.console import duration, log
from common.cli.errors import UserError, causes, plain

TRIES = 6
FIRST_PAUSE = 2.0  # seconds; each pause is twice the one before
PATIENCE = 600.0  # seconds of pauses altogether; the Hub counts its users' requests in windows of 300
FAILING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be others later
CHANGED = 412  # a commit onto a state that is no longer the last: perhaps our own, whose answer was lost

Result = TypeVar("Result")


class HubFailed(UserError):
    """Not the user failed but the Hub: the same command, later, finishes what this one began."""

    exit_status = os.EX_TEMPFAIL  # 75


class Fault:
    """A failure of the Hub.

    Attributes:
        what: What happened, in a few words.
        retry_after: Seconds that the Hub asks to wait.
        passing: Whether waiting may help; not where the Hub was never reached: there is none, or no network.
    """

    def __init__(self, what: str, *, retry_after: float | None = None, passing: bool = True):
        self.what, self.retry_after, self.passing = plain(what), retry_after, passing

    def __str__(self) -> str:
        return self.what

    def error(self, name: object, tries: int = 1) -> HubFailed:
        """What ends the command, about ``name``, after so many tries."""
        from huggingface_hub import constants

        if not self.passing:
            fix = "check the network, and HF_ENDPOINT"
            return HubFailed(f"{constants.ENDPOINT} can't be reached", file=str(name), fix=fix)
        times = f", {tries} times" if tries > 1 else ""
        asks = f", and asks to wait {duration(self.retry_after)}" if self.retry_after else ""
        fix = "try again later: the same command goes on from what is there"
        return HubFailed(f"{self.what}{times}{asks}", file=str(name), fix=fix)


def patiently(work: Callable[[], Result], name: object) -> Result:
    """``work()``, called again where the Hub fails in it; each pause is said.

    Args:
        work: Something that begins by looking at what is there: of a lost answer nobody knows whether the work was done.
        name: What it is about, for the user.

    Raises:
        HubFailed: The Hub failed :data:`TRIES` times, or asks for more than :data:`PATIENCE`.
    """
    waited = 0.0
    for tries in range(1, TRIES + 1):
        try:
            return work()
        except Exception as error:
            fault = fault_in(error)
            if fault is None:
                raise
            pause = max(FIRST_PAUSE * 2 ** (tries - 1), fault.retry_after or 0.0)
            if tries == TRIES or not fault.passing or waited + pause > PATIENCE:
                raise fault.error(name, tries) from error
            log(f"{fault}; trying again in {duration(pause)} (try {tries + 1} of {TRIES}; Ctrl-C stops)")
        time.sleep(pause)
        waited += pause
    raise AssertionError


def fault_in(error: BaseException) -> Fault | None:
    """The Hub's failure that an error came of; None where it came of a refusal, or of something else."""
    import httpx2
    from huggingface_hub import errors

    for cause in causes(error):
        if fault := getattr(cause, "fault", None):
            return fault
        if isinstance(cause, errors.OfflineModeIsEnabled):
            return None
        if isinstance(cause, errors.HfHubHTTPError):
            return fault_of_answer(cause.response)
        if isinstance(cause, httpx2.NetworkError | httpx2.TimeoutException | httpx2.RemoteProtocolError):
            return Fault(f"the Hub can't be reached ({type(cause).__name__})")
    return None


def fault_of_answer(response: Any) -> Fault | None:
    """The failure that an HTTP answer is, if any."""
    if response.status_code not in (*FAILING, CHANGED):
        return None
    said = response.headers.get("X-Error-Message") or response.reason_phrase
    where = f"{response.request.method} {response.request.url.path}"  # without the query, which may hold a key
    return Fault(f"the Hub answered {response.status_code} ({said}) to {where}", retry_after=_retry_after(response))


def _retry_after(response: Any) -> float | None:
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


@functools.cache
def use_patient_client() -> None:
    """From now on this process asks the Hub through :mod:`common.models.retry`."""
    from huggingface_hub import set_client_factory

    set_client_factory(make_client)


CONNECT, READ = 10.0, 60.0  # seconds after which no connection, and no answer, is a failure


class HubFault(HfHubHTTPError):
    """A fault as the client's callers know errors: they go on from the cache where they can, and do not repeat it."""

    def __init__(self, fault: Fault, response: httpx2.Response):
        super().__init__(str(fault), response=response)
        self.fault = fault


class Client(httpx2.Client):
    """Sends the Hub's requests; ``reached`` once one was answered."""

    reached = False

    def send(self, request: httpx2.Request, *, stream: bool = False, **how: Any) -> httpx2.Response:
        limits = {"connect": CONNECT, "read": READ, "write": READ, "pool": READ}
        given = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = limits | {name: value for name, value in given.items() if value is not None}
        if stream:  # downloads, which the client itself goes on with where they broke off
            return super().send(request, stream=True, **how)
        where = f"{request.method} {request.url.path}"  # without the query: an upload's address holds a key to it
        try:
            response = super().send(request, **how)
        except (httpx2.NetworkError, httpx2.TimeoutException, httpx2.RemoteProtocolError) as error:
            silent = isinstance(error, httpx2.TimeoutException)
            fault = Fault(
                f"the Hub {'does not answer' if silent else 'closed the connection'} ({where})",
                passing=Client.reached or not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout),
            )
            raise HubFault(fault, httpx2.Response(504, request=request)) from error
        Client.reached = True
        if found := fault_of_answer(response):
            raise HubFault(found, response)
        return response


def make_client() -> Client:
    """A client for :func:`huggingface_hub.set_client_factory`."""
    return Client(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True, timeout=None)

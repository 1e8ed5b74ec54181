"""The Hub's client, with requests that end: a failure is told at once, and repeating is left to :mod:`common.patience`.

The client's own default waits for ever for an answer to most requests; some it repeats, in silence and for as long as the
server's Retry-After says, others, as a commit, never.
"""

from __future__ import annotations

from typing import Any

import httpx2
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import hf_request_event_hook

from common.patience import Fault, fault_of_answer

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

"""Publishing to a Hub that fails, at every request and in every way: all or nothing is there, and nothing is sent twice."""

from __future__ import annotations

import collections
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.cli.errors import UserError
from common.hub.package import check_access, prepare
from common.hub.upload import publish
from common.models import retry
from common.models.retry import HubFailed
from tests.strict_hub import StrictHub

ROOT = Path(__file__).parents[3]
ID, BASE = "miniature/model", "miniature/tiny_roberta"
SHORT = 0.5  # seconds in which the Hub must answer here
REQUESTS = {
    "who": "^GET /api/whoami",
    "base": f"^GET /api/models/{BASE}$",
    "create": "^POST /api/repos/create",
    "look": f"^GET /api/models/{ID}$",
    "refs": "/refs",
    "tree": "/tree/",
    "modes": "/preupload/",
    "batch": "/objects/batch",
    "put": "^PUT ",
    "third put": "^PUT ",
    "verify": "/lfs/verify",
    "card": "/validate-yaml",
    "commit": "/commit/",
    "tag": "/tag/",
}
FAULTS = {
    "429": {"status": 429, "headers": {"Retry-After": "0"}},
    "503": {"status": 503},
    "dropped": {"status": 0, "drop": True},
    "answer lost": {"status": 502, "apply": True},
    "hangs": {"status": 0, "delay": 2 * SHORT, "drop": True},
    "done late": {"status": 0, "delay": 2 * SHORT, "drop": True, "apply": True},
}
SAID = {
    "429": "answered 429",
    "503": "answered 503",
    "dropped": "closed the connection",
    "answer lost": "answered 502",
    "hangs": "did not answer",
    "done late": "did not answer",
}
DONE = ("answer lost", "done late")
FEW = {("commit", "answer lost"), ("commit", "503"), ("put", "hangs"), ("tag", "answer lost"), ("create", "429")}


def every(*faults: str) -> list:
    pairs = [(kind, fault) for kind in REQUESTS for fault in faults]
    return [pytest.param(*pair, marks=[] if pair in FEW else pytest.mark.slow) for pair in pairs]


@pytest.fixture(scope="module")
def package(runs):
    return prepare(runs["snli_adapter"], ID)


@pytest.fixture
def run(package, bases, monkeypatch):
    """What the command does once it has made the card; whether a commit was new."""
    monkeypatch.setattr(retry, "READ", SHORT)

    def run() -> bool:
        check_access(ID, BASE)
        return publish(package, ID, private=False, tag="v1")[1]

    yield run
    if any(fault.apply and fault.delay for fault in bases.faults):
        time.sleep(2 * SHORT)  # what is done late is not done in the next test


def puts(hub: StrictHub) -> collections.Counter:
    return collections.Counter(line for line in hub.log if line.startswith("PUT "))


def check_complete(hub: StrictHub, package) -> None:
    """One commit with all files, the tag on it."""
    repository = hub.repositories["models", ID]
    assert len(repository.commits) == 2
    assert repository.refs["refs/tags/v1"] == repository.refs["refs/heads/main"]
    files = repository.files("v1")
    assert set(files) == {".gitattributes", *package.files}
    for name, content in package.files.items():
        assert files[name].data == (content if isinstance(content, bytes) else content.read_bytes())


def spoil(hub: StrictHub, kind: str, fault: str, **how: object) -> None:
    hub.fail(REQUESTS[kind], **FAULTS[fault], after=2 if kind == "third put" else 0, **how)


@pytest.mark.parametrize(("kind", "fault"), every(*FAULTS))
def test_a_failure_in_passing_is_overcome(kind, fault, run, bases, package, capsys):
    spoil(bases, kind, fault)
    assert run(), "what this command did is told as done by it"
    check_complete(bases, package)
    said = [line for line in capsys.readouterr().err.splitlines() if "retrying" in line]
    assert len(said) == 1
    assert re.search(rf"the Hub {SAID[fault]}.*; retrying in 0 s \(try 2 of 6; Ctrl-C stops\)$", said[0])
    large = {f"PUT /_lfs/{b.sha256}" for b in bases.repositories["models", ID].files().values() if b.lfs}
    assert len(large) > 3
    assert set(puts(bases)) == large
    again = sum(puts(bases).values()) - len(large)
    assert again == (kind.endswith("put") and fault != "answer lost"), "only what did not arrive is sent again"


@pytest.mark.parametrize(("kind", "fault"), every("503", "answer lost", "hangs"))
def test_after_one_that_lasts_the_next_command_does_what_is_missing(kind, fault, run, bases, package, monkeypatch):
    monkeypatch.setattr(retry, "TRIES", 2)
    spoil(bases, kind, fault, times=-1)
    if fault == "answer lost" and kind in ("commit", "tag"):
        assert run(), "what was done is seen, though no answer to it ever came"
    else:
        with pytest.raises(HubFailed, match=rf"the Hub {SAID[fault]}.*, 2 times.*") as error:
            run()
        assert error.value.exit_status == 75
        if kind == "tag":
            assert re.match("commit [0-9a-f]{12} is published, but not its tag 'v1': the Hub", error.value.problem)
        if (repository := bases.repositories.get(("models", ID))) is not None:
            assert len(repository.commits) == 1 + (kind == "tag")
    there = {f"PUT /_lfs/{sha256}" for sha256 in bases.lfs}
    bases.faults.clear()
    bases.log.clear()
    run()
    check_complete(bases, package)
    assert not set(puts(bases)) & there
    assert set(puts(bases).values()) <= {1}


@pytest.fixture
def command(runs, few, bases):
    """Starts the command in a process of its own, without the verification."""
    started: list[subprocess.Popen] = []

    def start(**environment: str) -> subprocess.Popen:
        words = ["common.hub", "publish", runs["snli_adapter"], "--repo_id", ID, "--tag", "v1", "--verify", "false"]
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for_request(hub: StrictHub, pattern: str, count: int = 1) -> None:
    end = time.monotonic() + 60
    while sum(bool(re.search(pattern, line)) for line in hub.log) < count:
        assert time.monotonic() < end, f"no {pattern} in {hub.log}"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "done"),
    [
        ("batch", False),  # as any request that changes nothing
        *((kind, done) for kind in ("create", "third put", "commit", "tag") for done in (False, True)),
    ],
)
def test_killed_at_any_request_the_next_command_does_what_is_missing(kind, done, command, run, bases, package):
    """Killed while the Hub has a request, which it then does all the same, or does not."""
    after = 2 if kind == "third put" else 0
    fault = bases.fail(REQUESTS[kind], status=0, delay=1.0, drop=True, apply=done, after=after)
    process = command()
    wait_for_request(bases, REQUESTS[kind], after + 1)
    process.kill()
    process.wait()
    assert fault.dropped.wait(60)
    there = {f"PUT /_lfs/{sha256}" for sha256 in bases.lfs}
    if (repository := bases.repositories.get(("models", ID))) is not None:
        assert len(repository.commits) == 1 + (kind == "tag" or (kind == "commit" and done))
    bases.log.clear()
    run()
    check_complete(bases, package)
    assert not set(puts(bases)) & there
    assert set(puts(bases).values()) <= {1}


@pytest.mark.parametrize("kind", ["put", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("commit", "pause"))])
def test_ctrl_c_ends_it_at_once(kind, command, bases):
    """Also while the Hub keeps an upload waiting, or has asked to wait itself."""
    if kind == "pause":
        bases.fail("/commit/", status=429, headers={"Retry-After": "300"})
    else:
        bases.fail(REQUESTS[kind], status=0, delay=30)
    process = command()
    if kind == "pause":
        for line in process.stderr:
            if "retrying in 5 min 0 s" in line:
                break
    else:
        wait_for_request(bases, REQUESTS[kind])
    process.send_signal(signal.SIGINT)
    process.wait(timeout=10)  # much less than the Hub takes
    assert process.returncode == 130
    assert process.stderr.read().splitlines()[-1] == "interrupted"


def test_no_hub_at_all_is_a_failure_of_another_kind_than_a_refusal(command):
    process = command(HF_ENDPOINT="http://127.0.0.1:9")
    *listed, error = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 75
    assert error == f"error: {ID}: cannot reach http://127.0.0.1:9. Check the network and HF_ENDPOINT"
    assert "files for" in listed[0]


@pytest.mark.parametrize(
    ("headers", "pauses"),
    [
        ({"Retry-After": "2"}, [2]),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}, [0.01]),
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, [55]),
        ({"Retry-After": "soon"}, [0.01]),
        ({"Retry-After": "601"}, None),
    ],
)
def test_as_long_as_the_hub_asks_is_waited_but_not_for_ever(headers, pauses, run, bases, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=waited.append))
    bases.fail("/commit/", status=429, headers=headers)
    if pauses is None:
        with pytest.raises(HubFailed, match=r"answered 429 .*, and asks to wait 10 min 1 s. Try again later"):
            run()
        assert waited == []
    else:
        assert run()
        assert waited == pauses


def test_pauses_grow_and_end(run, bases, monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=waited.append))
    monkeypatch.setattr(retry, "FIRST_PAUSE", 2.0)
    bases.fail("/commit/", status=503, times=-1)
    with pytest.raises(HubFailed, match=", 6 times"):
        run()
    assert waited == [2, 4, 8, 16, 32]


def test_a_refusal_is_not_repeated(run, bases):
    bases.fail("^PUT ", status=403, times=-1)
    with pytest.raises(UserError, match="the Hub answered 403") as error:
        run()
    assert error.value.exit_status == 2
    assert len(puts(bases)) == 1

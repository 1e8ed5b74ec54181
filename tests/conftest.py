"""Start one Hub on the loopback for the whole run, before any library reads the Hub's environment variables."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.first_rows import cut_sbic, cut_snli
from tests.strict_hub import StrictHub

assert not {"huggingface_hub", "transformers", "datasets"} & set(sys.modules), "imported before the test Hub started"

_HOME = tempfile.TemporaryDirectory(prefix="hub-home-")
_HUB = StrictHub().__enter__()
# Keep the developer's own setup out: token, cache, offline mode, launcher.
for _name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "ACCELERATE_"))]:
    del os.environ[_name]
os.environ.update(_HUB.environment(_HOME.name), TOKENIZERS_PARALLELISM="false", XDG_CACHE_HOME=f"{_HOME.name}/cache")
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # as in every command: importing the compiler takes seconds
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Jobs that a shell starts in the background ignore Ctrl-C, and so would every process that a test sends it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Property tests use the same examples on every machine and write nothing to the repository.
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{_HOME.name}/hypothesis"
_PROPERTIES = {
    "derandomize": True,
    "database": None,
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("few", max_examples=15, **_PROPERTIES)
settings.register_profile("many", max_examples=40, **_PROPERTIES)
settings.load_profile("few")

ROOT = Path(__file__).parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _one_fork_server() -> None:
    """Whichever test starts the fork server, it imports what :mod:`tests.forked` chooses."""
    importlib.import_module("tests.forked")


@pytest.fixture(autouse=True)
def _not_quiet() -> Iterator[None]:
    """Undo ``--quiet``, which commands pass on to the processes that they start."""
    yield
    os.environ.pop("FINETUNING_QUIET", None)


@pytest.fixture
def hub() -> Iterator[StrictHub]:
    """Return the Hub, empty and without faults."""
    _HUB.repositories.clear()
    _HUB.lfs.clear()
    _HUB.faults.clear()
    _HUB.log.clear()
    yield _HUB
    _HUB.faults.clear()


@pytest.fixture(scope="session")
def miniature() -> Path:
    """Return the folder of the miniature's corpora."""
    from common.miniature import cache as corpora

    return corpora.build()


@pytest.fixture(scope="session")
def small_cache(miniature, tmp_path_factory) -> Path:
    """Return a value of XDG_CACHE_HOME with which every command sees a miniature of a quarter of the rows to train on."""
    from common.miniature import cache as corpora

    cache = tmp_path_factory.mktemp("small")
    folder = cache / miniature.parent.name / miniature.name
    shutil.copytree(miniature, folder)
    cut_sbic(folder / "SBIC.v2", folder / "SBIC.v2", trn=1200, dev=250, tst=900)
    cut_snli(folder / "snli_1.0", folder / "snli_1.0", train=1500, dev=200, test=300)
    (folder / corpora.MANIFEST).write_text(json.dumps(corpora._digests(folder)), encoding="utf-8")
    return cache


@pytest.fixture(scope="module")
def small_miniature_for_module(small_cache) -> Iterator[Path]:
    """Give all tests of a module, and the commands that they run, the small miniature, and return its folder."""
    from common.miniature import cache as corpora

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(small_cache))
        yield corpora.build()


@pytest.fixture
def small_miniature(small_cache, monkeypatch) -> Path:
    """Give this test and the commands that it runs the small miniature, and return its folder."""
    from common.miniature import cache as corpora

    monkeypatch.setenv("XDG_CACHE_HOME", str(small_cache))
    return corpora.build()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real corpora next to the project; skip the test if there is none."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real corpora next to the project")
    return REAL_DATA


LAUNCHES = "launches"
# What takes longest, and so starts first.
LONG = (
    *("tests/test_readme.py::", LAUNCHES, "tests/test_notebooks.py::", "tests/test_properties.py::"),
    *("tests/snli_roberta/study/test_study.py", "tests/benchmarks/test_bench.py", "tests/common/hub/test_tokens.py"),
    *("tests/sbic_llama/training/test_training.py", "tests/sbic_llama/annotation/test_annotate.py"),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep tests of a file together, and all tests that launch several processes; start with what takes longest.

    Of two such launches at the same time, one sometimes aborts at its very end, so these tests are marked as a group. Slow
    tests at the top level, as a page's commands or a notebook, share no fixture that is slow to make, so each of them may run
    anywhere.
    """
    from xdist.scheduler import LoadScopeScheduling

    def rank(scope: str) -> int:
        return next((place for place, start in enumerate(LONG) if scope.startswith(start)), len(LONG))

    class LongestFirst(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.endswith(f"@{LAUNCHES}"):
                return LAUNCHES
            path = nodeid.partition("::")[0]
            return nodeid if config.option.markexpr == "slow" and path.count("/") == 1 else path

        def _assign_work_unit(self, node: Any) -> None:
            self.workqueue.move_to_end(min(self.workqueue, key=rank), last=False)
            super()._assign_work_unit(node)

    return LongestFirst(config, log)

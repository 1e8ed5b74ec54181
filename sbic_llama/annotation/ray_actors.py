"""Annotate on Ray Data: posts stream from this machine to actors, each with a model, and their parts stream back.

Only this machine reads the posts and writes the output. The machines of the actors need access to adapters and base model:
by Hub ids, or on a shared disk.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.arguments import ENCODING
from common.cli.console import log
from common.cli.errors import UserError, shown
from common.models.loading import hub_commit
from common.runtime import hardware
from sbic_llama.annotation.input import Part, RowFormat, Survey, Window, annotated, windows
from sbic_llama.annotation.parts import digest_of
from sbic_llama.data.texts import TextColumns

if TYPE_CHECKING:
    import pyarrow

    from sbic_llama.model.annotator import Adapter
    from sbic_llama.model.description import AnnotatorFile

REQUIREMENTS = "requirements-scale.txt"
DEATHS = (
    10  # of an actor, and of the actors working on a window, before the run ends: the window may be what kills them
)


@dataclass(frozen=True)
class ActorSettings:
    """What an actor loads."""

    adapters: tuple[str | Adapter, ...]  # folders or Hub ids, each at the commit that this machine has, or as read
    digests: tuple[str, ...]  # of the adapters, see `digest_of`
    label_shares: dict[str, float]
    quantization: Any
    batch_size: int
    on_gpu: bool
    precision: str
    actors: int  # how many there are; they may share one machine's memory


class AnnotationActor:
    """An actor: a model, loaded with the first window, so that a failure can be reported."""

    def __init__(self, settings: ActorSettings, row_format: RowFormat):
        self._settings, self._row_format, self._annotator = settings, row_format, None

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        import pyarrow

        (window,) = [Window(**row) for row in batch.to_pylist()]
        try:
            if self._annotator is None:
                self._annotator = self._load()
        except UserError as error:
            return pyarrow.table({"error": [str(error)]})
        return pyarrow.Table.from_pylist([asdict(annotated(window, self._annotator, self._row_format))])

    def _load(self) -> Any:
        settings = self._settings
        if not settings.on_gpu:
            os.environ["ACCELERATE_USE_CPU"] = "true"
            os.environ["LOCAL_WORLD_SIZE"] = str(settings.actors)
        from common.cli.console import quiet_libraries

        quiet_libraries()
        from sbic_llama.model.annotator import Annotator

        how: dict[str, Any] = {"quantization": settings.quantization, "batch_size": settings.batch_size}
        model = Annotator(*settings.adapters, label_shares=settings.label_shares, **how)
        for adapter, name, digest in zip(model.adapters, settings.adapters, settings.digests, strict=True):
            if digest_of(adapter) != digest:
                problem = "a machine of the cluster has another adapter of this name"
                raise UserError(problem, file=name, fix="give all machines the same adapter")
        if model.precision.value != settings.precision:
            problem = f"machines of the cluster compute in {settings.precision} and in {model.precision.value}"
            raise UserError(problem, fix="use machines of one kind")
        return model


def parts(
    settings: ActorSettings, files: Sequence[Survey], wanted: Sequence[tuple[int, int]], row_format: RowFormat
) -> Iterator[Part]:
    """Yield the wanted parts as actors finish them. A dead actor is replaced, and its window is repeated."""
    import ray.data
    from ray.exceptions import RayError

    try:
        # One core runs one thread, so numbers are the same on every machine.
        done = _windows(files, list(wanted), row_format.texts).map_batches(
            AnnotationActor,
            fn_constructor_args=(settings, row_format),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=settings.actors),
            num_cpus=1,
            num_gpus=1 if settings.on_gpu else 0,
            max_restarts=DEATHS,
            max_task_retries=DEATHS,
        )
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                if row.get("error"):
                    raise UserError(f"an actor failed: {row['error']}")
                yield Part(**row)
    except RayError as error:
        if isinstance(cause := getattr(error, "cause", None), UserError):  # as for posts that changed
            raise cause from None
        problem = f"Ray failed: {str(error).strip().splitlines()[0]}"
        raise UserError(problem, fix="check that memory suffices; the same command continues") from error


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at an address, or to a new one on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # messages of its C++ part on standard error
    try:
        import ray
        import ray.data
    except ImportError as error:
        problem = f"Ray cannot be imported: {error}"
        raise UserError(problem, key="--engine", fix=f"run pip install -r {REQUIREMENTS}") from None
    if address:
        _check_address(address)
    _quiet()
    where: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
    if encoding := os.environ.get(ENCODING):
        where["runtime_env"] = {"env_vars": {ENCODING: encoding}}
    try:
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        problem, fix = f"no Ray cluster: {str(error).strip().splitlines()[0]}", "find a running one with ray status"
        raise UserError(problem, key="--ray_address", fix=fix) from None
    # Ray reports dead actors on standard output, where annotated posts may go, some only at shutdown.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            yield
        finally:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Check that something listens at an address; Ray itself would wait for many minutes without a message."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        expected = "host:port of its head, such as 10.0.0.1:6379"
        raise UserError(f"{shown(address)} is not an address", key="--ray_address", expected=expected)
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        problem = f"no answer from {address}: {error}"
        raise UserError(problem, key="--ray_address", fix="start a cluster with ray start --head") from None


def _quiet() -> None:
    """Silence messages of Ray about its plans and settings; its log files keep them."""
    warnings.filterwarnings("ignore", ".*deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")  # there is no other way to limit restarts
    for handler in logging.getLogger("ray.data").handlers:
        if type(handler).__name__ == "PlainRayHandler":  # the console's
            handler.setLevel(logging.CRITICAL)


def choose_actors(
    adapters: Sequence[Adapter],
    names: Sequence[str | Adapter],
    *,
    label_shares: dict[str, float],
    quantization: Any,
    batch_size: int,
    new_cluster: bool,
    actors: int | None,
) -> ActorSettings:
    """Choose the actors of the connected cluster, for adapters that the user called ``names``."""
    import ray

    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    on_gpu = gpus > 0 and (not new_cluster or hardware.device_type() != "cpu")
    size = actors or (gpus if on_gpu else 1)
    if size > (available := gpus if on_gpu else cores):
        kind = "GPUs" if on_gpu else "cores"
        raise UserError(f"the cluster has {available} {kind}", key="--actors", expected=f"at most {available}")
    remote = ray.remote(_precision).options(num_cpus=1, num_gpus=1 if on_gpu else 0)
    precision = ray.get(remote.remote(on_gpu, adapters[0].description))
    places: list[str | Adapter] = []
    for name, adapter in zip(names, adapters, strict=True):
        if adapter.folder is None:
            places.append(adapter)
            continue
        # Other machines must not load a later commit, nor look for a folder relative to their own working directory.
        on_hub = f"{name.partition('@')[0]}@{hub_commit(adapter.folder)}"
        places.append(str(Path(name).resolve()) if Path(name).exists() else on_hub)
    features = ", ".join(adapter.name for adapter in adapters)
    count = "1 actor" if size == 1 else f"{size} actors"
    log(f"{features} in {precision}, {count} with a {'GPU' if on_gpu else 'core'} each")
    digests = tuple(digest_of(adapter) for adapter in adapters)
    return ActorSettings(tuple(places), digests, label_shares, quantization, batch_size, on_gpu, precision, size)


def _precision(on_gpu: bool, description: AnnotatorFile) -> str:
    if not on_gpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    from sbic_llama.model.adapter import precision_for

    return precision_for(description).value


def _windows(files: Sequence[Survey], wanted: list[tuple[int, int]], texts: TextColumns) -> Any:
    """Return a dataset of windows, one per row, that are read on this machine as they are consumed."""
    import ray.data
    from ray.data.block import BlockMetadata

    class Windows(ray.data.Datasource):
        supports_distributed_reads = False  # the files are on this machine

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ray.data.ReadTask]:
            read = functools.partial(_blocks, list(files), wanted, texts)
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ray.data.ReadTask(read, unknown)]

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # byte: do not hold a window back until others fill a block of 128 MB
    # Reading takes no core: with an actor on each, it would wait forever.
    return ray.data.read_datasource(Windows(), num_cpus=0, override_num_blocks=1)


def _blocks(files: list[Survey], wanted: list[tuple[int, int]], texts: TextColumns) -> Iterator[pyarrow.Table]:
    import pyarrow

    strings, number = pyarrow.list_(pyarrow.string()), pyarrow.int64()
    columns = {"file": number, "number": number, "reasons": strings, "equals": pyarrow.list_(number), "posts": strings}
    schema = pyarrow.schema(columns)
    for window in windows(files, wanted, texts):
        yield pyarrow.Table.from_pylist([asdict(window)], schema=schema)

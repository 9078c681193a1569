"""Making chunks while Beam is still being imported.

A run in process waits a second for Beam's import and its graph, on one core, and then reads for as
long as it takes, on all of them. Here processes begin with the reading at once and take the shards
one by one until there are no more. The pipeline stays what it is: it waits for them, finds their
chunks as it would find those of an earlier run, and makes what they could not.

They are forks of the driver, so they cost no start; threads would wait for the interpreter, which
an import does not let go of (tried: they did a fifth of the work). A process forks safely only
while it has one thread: where that is not so, as in a program that uses the library, there is
nothing of this, and the pipeline does all the work.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from candlebeam.errors import CandlebeamError
from candlebeam.inventory import TRADE_LOG
from candlebeam.io.cancellation import is_cancelled
from candlebeam.io.make_chunk import load_kernels, make_chunks
from candlebeam.io.staging import ShardRef, Staging, list_shards, read_shard
from candlebeam.settings import CandleSettings
from candlebeam.shards import Shard

#: Shards that a worker is given beforehand, so that it need not wait for a busy driver.
_AHEAD = 2
_PR_SET_PDEATHSIG = 1

_runs: dict[str, EarlyWorkers] = {}


class _Worker(NamedTuple):
    """A process: it is told places of shards, a line each, and answers with lines in turn."""

    pid: int
    orders: BinaryIO
    answers: BinaryIO


class EarlyWorkers:
    """Processes that make the chunks of a plan, from the front.

    Args:
        run: the run's name.
        manifests: of the plan.
        staging, settings, rejects: as for the pipeline.
    """

    def __init__(
        self,
        run: str,
        manifests: Sequence[str],
        staging: Staging,
        settings: CandleSettings,
        rejects: str | None,
    ) -> None:
        self._run, self._staging = run, staging
        self._settings, self._rejects = settings, rejects
        self._refs = _each_shard(manifests)
        self._taking = threading.Lock()
        # Whether the chunk of a shard was made, for each that a worker is done with.
        self._made: dict[str, bool] = {}
        self._workers: list[_Worker] = []
        self._running = 0
        self._news = threading.Condition()
        self._stopped = False

    def start(self, workers: int, source: str) -> None:
        """Begins, once the kernels for an archive are loaded, so that every worker has them."""
        if not workers or not _can_fork():
            return
        load_kernels(source)
        for _ in range(workers):
            self._workers.append(self._fork())
        self._running = len(self._workers)
        for worker in self._workers:
            threading.Thread(target=self._lead, args=(worker,), daemon=True).start()

    def stop(self) -> None:
        """Ends the workers, whatever they are at: a chunk is there as a whole or not at all."""
        self._stopped = True
        for worker in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
        with self._news:
            while self._running:
                self._news.wait()
        for worker in self._workers:
            os.waitpid(worker.pid, 0)

    def has_made(self, shard: Shard) -> bool:
        """Whether a worker has made the chunk of a shard; waits as long as one may still do it."""
        with self._news:
            while shard.name not in self._made and self._running:
                self._news.wait()
            return self._made.get(shard.name, False)

    # In the driver

    def _fork(self) -> _Worker:
        orders_out, orders_in = os.pipe()
        answers_out, answers_in = os.pipe()
        with warnings.catch_warnings():
            # Of the threads that a numeric library may have; they take care of themselves.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _run_to_the_end(self, orders_out, answers_in)
        os.close(orders_out)
        os.close(answers_in)
        return _Worker(pid, os.fdopen(orders_in, "wb"), os.fdopen(answers_out, "rb"))

    def _lead(self, worker: _Worker) -> None:
        """Gives a worker its orders and takes its answers, until nothing is left or it has died."""
        try:
            with worker.orders, worker.answers:
                ahead = 0
                while True:
                    while ahead < _AHEAD and (ref := self._next_shard()) is not None:
                        worker.orders.write(json.dumps(ref.to_values()).encode() + b"\n")
                        worker.orders.flush()
                        ahead += 1
                    answer = worker.answers.readline() if ahead else b""
                    if not answer.endswith(b"\n"):
                        return
                    ahead -= 1
                    with self._news:
                        self._made.update(json.loads(answer))
                        self._news.notify_all()
        except (CandlebeamError, OSError):
            # What goes wrong here goes wrong again in the pipeline, which tells the user.
            return
        finally:
            with self._news:
                self._running -= 1
                self._news.notify_all()

    def _next_shard(self) -> ShardRef | None:
        with self._taking:
            if self._stopped or is_cancelled(self._run):
                return None
            return next(self._refs, None)

    # In a worker

    def obey(self, orders: BinaryIO, answers: BinaryIO) -> None:
        """Makes the chunks that it is told to, until there are no more orders."""
        for order in orders:
            refs = ShardRef.from_values(json.loads(order)).each
            shards = [read_shard(ref) for ref in refs]
            made = self._make([s for s in shards if not self._staging.find_chunk(s)])
            answer = [[shard.name, shard.name in made] for shard in shards]
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()

    def _make(self, shards: Sequence[Shard]) -> set[str]:
        if not shards:
            return set()
        try:
            make_chunks(shards, self._staging, self._settings, self._rejects)
        except (CandlebeamError, OSError):
            return set()
        return {shard.name for shard in shards}


def early_workers(run: str) -> EarlyWorkers | None:
    """The workers of a run, if it has any in this process."""
    return _runs.get(run)


@contextmanager
def working_early(
    workers: EarlyWorkers, run: str, count: int, source: str = TRADE_LOG
) -> Iterator[None]:
    """Has `count` workers at work while a pipeline is imported, built and run inside the `with`.

    `source` is the kind of the archive.
    """
    _runs[run] = workers
    try:
        workers.start(count, source)
        yield
    finally:
        workers.stop()
        del _runs[run]


def _can_fork() -> bool:
    return sys.platform == "linux" and threading.active_count() == 1


def _run_to_the_end(workers: EarlyWorkers, orders: int, answers: int) -> None:
    """The life of a worker. It never returns into the driver's code."""
    code = 1
    try:
        # Ctrl-C is the driver's to handle. A worker must not outlive it, nor hold on to its lock.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _close_all_but({0, 1, 2, orders, answers})
        with os.fdopen(orders, "rb") as told, os.fdopen(answers, "wb") as tell:
            workers.obey(told, tell)
        code = 0
    finally:
        os._exit(code)


def _close_all_but(kept: set[int]) -> None:
    begin = 0
    for descriptor in [*sorted(kept), os.sysconf("SC_OPEN_MAX")]:
        # An empty range that begins at 0 is taken for all there are.
        if begin < descriptor:
            os.closerange(begin, descriptor)
        begin = descriptor + 1


def _each_shard(manifests: Sequence[str]) -> Iterator[ShardRef]:
    for manifest in manifests:
        yield from list_shards(manifest)

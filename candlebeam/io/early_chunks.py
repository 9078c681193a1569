"""Making chunks while Beam is still being imported.

A run in process waits a second for Beam's import and its graph, on one core, and then reads for
as long as it takes, on all of them. Threads of this module begin with the reading at once, and take
the shards one by one until there are no more. The pipeline stays what it is: it waits for them,
finds their chunks as it would find those of an earlier run, and makes what they could not. In other
processes than the driver's there is nothing of this, and all works the same.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from candlebeam.errors import CandlebeamError
from candlebeam.io.cancellation import is_cancelled
from candlebeam.io.make_chunk import load_kernels, make_chunk
from candlebeam.io.staging import ShardRef, Staging, list_shards, read_shard
from candlebeam.plan import Shard
from candlebeam.settings import CandleSettings

#: Seconds that a thread may wait for the interpreter.
_PATIENCE = 0.0002

_runs: dict[str, EarlyChunks] = {}


class EarlyChunks:
    """Threads that make the chunks of a plan, from the front.

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
        # Whether the chunk of a shard was made, for each that a thread is done with.
        self._made: dict[str, bool] = {}
        self._threads = 0
        self._news = threading.Condition()
        self._stopped = False

    def start(self, threads: int) -> None:
        """Begins, once the kernels are loaded: the threads could do nothing before."""
        if threads:
            load_kernels()
        self._threads = threads
        for number in range(threads):
            threading.Thread(target=self._work, name=f"early-{number}", daemon=True).start()

    def stop(self) -> None:
        """Has the threads begin no other shard."""
        self._stopped = True

    def has_made(self, shard: Shard) -> bool:
        """Whether a thread has made the chunk of a shard; waits as long as one may still do it."""
        with self._news:
            while shard.name not in self._made and self._threads:
                self._news.wait()
            return self._made.get(shard.name, False)

    def _work(self) -> None:
        try:
            while not (self._stopped or is_cancelled(self._run)):
                with self._taking:
                    ref = next(self._refs, None)
                if ref is None:
                    return
                shard = read_shard(ref)
                made = self._make(shard)
                with self._news:
                    self._made[shard.name] = made
                    self._news.notify_all()
        except (CandlebeamError, OSError):
            # What goes wrong here goes wrong again in the pipeline, which tells the user.
            return
        finally:
            with self._news:
                self._threads -= 1
                self._news.notify_all()

    def _make(self, shard: Shard) -> bool:
        if self._staging.find_chunk(shard):
            return False
        try:
            make_chunk(
                shard,
                self._staging,
                self._settings,
                self._rejects,
                lambda: is_cancelled(self._run),
            )
        except (CandlebeamError, OSError):
            return False
        return True


def early_chunks(run: str) -> EarlyChunks | None:
    """The threads of a run, if it has any in this process."""
    return _runs.get(run)


@contextmanager
def working_early(chunks: EarlyChunks, run: str, threads: int) -> Iterator[None]:
    """Has the threads work while a pipeline is imported, built and run inside the `with`."""
    _runs[run] = chunks
    patience = sys.getswitchinterval()
    # An import holds the interpreter for as long as it may; the threads need it often, but briefly.
    sys.setswitchinterval(min(patience, _PATIENCE))
    chunks.start(threads)
    try:
        yield
    finally:
        sys.setswitchinterval(patience)
        chunks.stop()
        del _runs[run]


def _each_shard(manifests: Sequence[str]) -> Iterator[ShardRef]:
    for manifest in manifests:
        yield from list_shards(manifest)

"""One worker: asks the runner what it is to do, and is Beam's worker from then on.

The arguments are those of Beam's container contract, which a worker pool gives (all of them) and a
runner with `--environment_type=PROCESS` (`--id` and `--provision_endpoint`). Everything is done in
this one process, so what runs is the Python that was started, and Beam is imported once.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import platform
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from candlebeam.errors import CandlebeamError
from candlebeam.io.memory import keep_freed_memory
from candlebeam.worker.parent import end_with_parent
from candlebeam.worker.worker_log import (
    DEFAULT_LIMIT,
    FOLDER_VARIABLE,
    LogSettings,
    WorkerLog,
    default_folder,
)

_LOG = logging.getLogger(__name__)

#: What a worker says to its pool once it is connected to the runner.
READY = "ready"

#: Connections have limits of their own, of a minute each.
_START_SECONDS = 300
_PROVISION_SECONDS = 60
#: How long the work at hand may take once the runner is gone, or asks for no more.
_END_SECONDS = 5
_TICK_SECONDS = 0.5


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a worker until its runner needs it no more."""
    # Importing makes millions of objects, of which none is garbage.
    gc.disable()
    given = _parse(arguments)
    if given.pool_pid:
        end_with_parent(given.pool_pid)
    tell = _teller(given.tell_fd)
    try:
        log = WorkerLog(LogSettings(given.log_dir or default_folder(), given.log_limit), given.id)
    except CandlebeamError as error:
        tell(str(error))
        sys.exit(f"candlebeam-boot: {error}")
    harness, handler = _start(given, log, tell)
    threading.Thread(target=_watch, args=(log, harness), daemon=True).start()
    _work(given.id, harness, handler)


def _start(
    given: argparse.Namespace, log: WorkerLog, tell: Callable[[str], None]
) -> tuple[Any, Any]:
    """Beam's worker, connected to the runner, and its handler of log records."""
    # What Beam says goes to the runner too, once there is a connection.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    faulthandler.enable()
    # Ends the process, whatever it is at, and says what that was.
    faulthandler.dump_traceback_later(_START_SECONDS, exit=True)
    print(f"worker {given.id}, process {os.getpid()}, Python {platform.python_version()}")
    print(f"{sys.executable}, started by process {os.getppid()}")
    keep_freed_memory()
    try:
        connected = _connect(given)
    except BaseException as error:
        faulthandler.dump_traceback_later(_END_SECONDS, exit=True)
        # Before it is told: who looks into the log then finds it there.
        traceback.print_exc()
        tell(f"{_line_of(error)} (worker {given.id}, log {log.path})")
        raise SystemExit(1) from error
    faulthandler.cancel_dump_traceback_later()
    gc.freeze()
    gc.enable()
    tell(READY)
    return connected


def _work(worker_id: str, harness: Any, handler: Any) -> NoReturn:
    """Does what the runner asks for, until it asks for no more or is gone."""
    import grpc

    lost = ""
    try:
        harness.run()
    except grpc.RpcError as error:
        lost = f"{error.code().name} {error.details()}"
    finally:
        faulthandler.dump_traceback_later(_END_SECONDS, exit=True)
        if handler is not None:
            handler.close()
    print(_usage())
    if lost:
        print(f"worker {worker_id} has lost its runner: {lost}")
        # There may still be threads at work, for nobody.
        os._exit(0)
    print(f"worker {worker_id} has ended")
    sys.exit(0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="candlebeam-boot",
        description="A worker of a Beam runner, started by it (--environment_type=PROCESS "
        """--environment_config='{"command": "PATH/candlebeam-boot"}') or by a worker pool """
        "(python -m candlebeam.worker).",
        epilog=f"What the worker prints goes to a file in ${FOLDER_VARIABLE}, or in a "
        "folder of yours in the folder for temporary files.",
        allow_abbrev=False,
    )
    parser.add_argument("--id", required=True, help="the worker's name")
    parser.add_argument("--provision_endpoint", required=True, metavar="URL")
    for name in ("control", "logging", "artifact", "status"):
        parser.add_argument(f"--{name}_endpoint", default="", metavar="URL")
    parser.add_argument("--semi_persist_dir", default="", metavar="DIR")
    for name, kind in (("log_dir", str), ("log_limit", int), ("pool_pid", int), ("tell_fd", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    parser.set_defaults(log_limit=DEFAULT_LIMIT)
    # Later runners may have more to say.
    return parser.parse_known_args(arguments)[0]


def _teller(descriptor: int | None) -> Callable[[str], None]:
    """Tells the pool one thing, if there is a pool."""
    if descriptor is None:
        return lambda text: None
    os.set_inheritable(descriptor, False)

    def tell(text: str) -> None:
        with os.fdopen(descriptor, "w", encoding="utf-8") as pool:
            pool.write(text)

    return tell


def _connect(given: argparse.Namespace) -> tuple[Any, Any]:
    # Beam looks at it when it is imported.
    os.environ["WORKER_ID"] = given.id
    from candlebeam.worker.provision import ask, environment_of, staged_files

    info = ask(given.provision_endpoint, given.id, _PROVISION_SECONDS)
    os.environ.update(environment_of(info, given))
    from apache_beam.runners.worker import sdk_worker_main

    handler, harness, _ = sdk_worker_main.create_harness(os.environ)
    sdk_worker_main._FN_LOG_HANDLER = handler
    if staged := staged_files(info):
        _LOG.warning("not fetched, as workers run what is installed here: %s", ", ".join(staged))
    return harness, handler


def _watch(log: WorkerLog, harness: Any) -> None:
    """Keeps the log small, and the end short once the runner is gone."""
    while harness._alive:
        time.sleep(_TICK_SECONDS)
        log.rotate()
    faulthandler.dump_traceback_later(_END_SECONDS, exit=True)


def _usage() -> str:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return f"{used.ru_utime + used.ru_stime:.1f} s of a core, at most {_peak_bytes() / 1e6:.0f} MB"


def _peak_bytes() -> int:
    try:
        # The other figure counts what the process was before it became this program: a Java one.
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _line_of(error: BaseException) -> str:
    if isinstance(error, CandlebeamError):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split())


if __name__ == "__main__":
    main()

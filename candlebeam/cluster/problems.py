"""What Flink, Spark and Beam say when a job fails, in one line for the user.

They say it as Java stack traces, which hold Python tracebacks, which hold the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from candlebeam.version import __version__

_LONGEST = 300
_BESIDE = "beside every TaskManager or executor"
_POOL = f"start `python -m candlebeam.worker` {_BESIDE}"
_NO_POOL = "no worker pool answers"
_SAME = f"install candlebeam {__version__} {_BESIDE}, for the Python of its worker pool"
#: How a line ends where nothing but another try is needed.
AGAIN = "run this again to go on from what is done"

_Line = Callable[["re.Match[str]"], str]


class _Known(NamedTuple):
    """A problem that is known by what is said of it.

    Attributes:
        pattern: searched for.
        line: what to tell the user.
        hopeless: whether it would be the same the next time.
        loss: whether a part of the cluster is gone, which may come back or be made up for.
    """

    pattern: re.Pattern[str]
    line: str | _Line
    hopeless: bool
    loss: bool

    def found_in(self, text: str) -> str:
        """The line for the user; "" if the problem is another."""
        found = self.pattern.search(text)
        if not found:
            return ""
        return self.line if isinstance(self.line, str) else self.line(found)


def _known(
    pattern: str, line: str | _Line, *, hopeless: bool = False, loss: bool = False
) -> _Known:
    return _Known(re.compile(pattern, re.MULTILINE), line, hopeless, loss)


def _module_missing(found: re.Match[str]) -> str:
    package, _, inner = found["module"].partition(".")
    if package != "candlebeam":
        return f"a worker has no package {package}: {_SAME}, with all that it needs"
    if inner or found["name"]:
        missing = ".".join(filter(None, (found["module"], found["name"])))
        return f"a worker has another candlebeam, without {missing}: {_SAME}"
    return f"a worker has no package candlebeam: {_SAME}"


def _no_pool(found: re.Match[str]) -> str:
    # Java names a host as localhost/127.0.0.1.
    place = re.sub(r"/[\w.:]*(?=:\d+$)", "", found["place"])
    where = f"at {place} " if place else ""
    return f"{_NO_POOL} {where}on the machine of a TaskManager or executor: {_POOL}"


def _class_version(found: re.Match[str]) -> str:
    needs, has = int(found["needs"]) - 44, int(found["has"]) - 44
    return (
        f"Java {has} was given classes for Java {needs}: use Java {needs} or newer, here "
        "(JAVA_HOME) and on the machines of the cluster"
    )


def _not_started(found: re.Match[str]) -> str:
    program, reason = found["program"], found["reason"]
    if program == "docker":
        return (
            "workers were to run in Docker containers, and there is no Docker: use "
            f"--environment_type=EXTERNAL --environment_config=localhost:50000, and {_POOL}"
        )
    return f"the machine of a TaskManager or executor cannot start a worker: {program}: {reason}"


#: What an exception of Python in a worker means; searched for in "Type: message".
_IN_PYTHON = (
    _known(
        r"^ModuleNotFoundError: No module named '(?P<module>[\w.]+)'(?P<name>)",
        _module_missing,
        hopeless=True,
    ),
    _known(
        r"^ImportError: cannot import name '(?P<name>\w+)' from '(?P<module>candlebeam[\w.]*)'",
        _module_missing,
        hopeless=True,
    ),
    _known(
        r"^AttributeError: module '(?P<module>candlebeam[\w.]*)' has no attribute '(?P<name>\w+)'",
        _module_missing,
        hopeless=True,
    ),
    _known(
        r"^AttributeError: Can't get attribute '(?P<name>\w+)' on <module '(?P<module>candlebeam"
        r"[\w.]*)'",
        _module_missing,
        hopeless=True,
    ),
    _known(
        r"a worker has candlebeam .* the driver .*: install the same on both",
        lambda found: found[0],
        hopeless=True,
    ),
    _known(
        # `feeds.stream_errors`: what a stream cannot go on with.
        r"^StreamEndedError: (?P<what>.*)",
        lambda found: found["what"],
        hopeless=True,
    ),
    _known(
        r"unsupported pickle protocol|unknown opcode|bad marshal data"
        r"|code\(\) argument|code expected at (?:least|most)|code\(\) takes",
        "a worker runs another version of Python than this machine: give both the same",
        hopeless=True,
    ),
    _known(
        r"^\w*MemoryError\b.*",
        lambda found: (
            f"a worker ran out of memory ({found[0]}): give its machine more memory or fewer slots"
        ),
    ),
    _known(
        r"\[Errno 28\] (?P<what>.*)",
        lambda found: f"a disk is full, on a worker's machine or where it writes: {found['what']}",
    ),
)

#: What a stack trace of Java means; searched for in all of the text, the first that fits counts.
_IN_JAVA = (
    _known(
        r"OutOfMemoryError(?:: (?P<what>[^\r\n]*))?",
        lambda found: (
            f"Java ran out of memory ({found['what'] or 'OutOfMemoryError'}): give TaskManagers or "
            "executors more, or, where everything runs in one process, the job server: "
            "--job_server_jvm_properties=-Xmx4g"
        ),
    ),
    _known(
        r"UnsupportedClassVersionError.*?\(class file version (?P<needs>\d+)\.\d+\)"
        r".*?up to (?P<has>\d+)",
        _class_version,
        hopeless=True,
    ),
    _known(
        r"InvalidClassException: (?P<what>[\w.$]+)|serialVersionUID",
        "the cluster does not run the version that the job server is for (Spark 3.5 for Spark; "
        "--flink_version for Flink), or another Scala or Java: their classes differ",
        hopeless=True,
    ),
    _known(
        r"Cannot run program \"(?P<program>[^\"]+)\".*?: (?:error=\d+, )?(?P<reason>[^\r\n]+)",
        _not_started,
        hopeless=True,
    ),
    _known(
        r"org\.apache\.beam\.vendor\.\S*AnnotatedConnectException: .*Connection refused: "
        r"(?P<place>[\w.\-]+(?:/[\w.:]*)?:\d+)",
        _no_pool,
        hopeless=True,
    ),
    _known(r"finishConnect\(\.\.\) failed: Connection refused(?P<place>)", _no_pool, hopeless=True),
    _known(
        r"UNAVAILABLE: Unable to resolve host (?P<place>[\w.\-]+)",
        _no_pool,
        hopeless=True,
    ),
    _known(
        r"TimeoutException: Waited (?P<time>\d+ \w+) .*for SettableFuture",
        lambda found: (
            f"a worker began nothing within {found['time']}: as a rule it could not load its work, "
            f"for its candlebeam or its Python is another (see the logs of its pool): {_SAME}"
        ),
        hopeless=True,
    ),
    _known(
        # The second is all that the job server tells of the first.
        r"NoResourceAvailableException|TimeoutException: Timeout has occurred: \d+ ms",
        "the cluster has too few free slots for the job: lower --parallelism, start more "
        "TaskManagers, or wait until other jobs end",
    ),
    _known(
        r"Heartbeat of TaskManager|TaskManager with id \S+ (?:timed out|is no longer reachable)"
        r"|[Cc]onnection unexpectedly closed by remote task manager"
        r"|TaskExecutor is shutting down|Lost connection to task manager",
        f"a TaskManager was lost (killed, out of memory, or cut off): see its log; {AGAIN}",
        loss=True,
    ),
    _known(
        r"ExecutorLostFailure|Lost executor|Remote RPC client disassociated",
        f"a Spark executor was lost (killed, out of memory, or cut off): see its log; {AGAIN}",
        loss=True,
    ),
    _known(
        r"StatusRuntimeException: (?:CANCELLED: client cancelled|UNAVAILABLE: "
        r"(?:Network closed|Connection reset|io exception))"
        r"|SDK [Hh]arness\b[^\r\n]* (?:died|disconnected|exited)",
        "a worker died or was cut off (killed, or out of memory): see the logs of the worker "
        f"pools; {AGAIN}",
        loss=True,
    ),
    _known(
        r"All masters are unresponsive|stopped SparkContext",
        "the Spark master did not take the job, or has given it up: is the cluster started, of "
        "Spark 3.5, and can it reach this machine?",
    ),
    _known(
        r"Application has been killed\. Reason: (?P<what>[^\r\n]+)",
        lambda found: f"the Spark master ended the job: {found['what']}",
    ),
    _known(
        r"ConnectException: Connection refused",
        "the Flink master takes no connections (any more), or a TaskManager or its worker pool "
        "does not: Connection refused",
    ),
    _known(
        r"(?:RestClientException|JobSubmissionException|RetryException): (?P<what>[^\r\n]+)",
        lambda found: (
            "the Flink master did not take the job, or does not tell of it any more: "
            f"{found['what']}"
        ),
    ),
    _known(
        r"No space left on device",
        "a disk is full on a machine of the cluster, or on this one: No space left on device",
    ),
)

_CAUSE = "Caused by: "
_MEMORY_ENDED = re.compile(r"^Terminating due to java\.lang\.OutOfMemoryError", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last):"
_PIPELINE_FAILED = re.compile(r"^Pipeline \S+ failed in state \w+: ")
_WHILE = re.compile(r"\s*\[while running '[^']*'\]")
#: "a.b.SomeError: " before a message, of Java or of Python, any number of times.
_TYPES = re.compile(r"^(?:(?P<type>(?:[\w$]+\.)*[\w$]*(?:Error|Exception|Cancelled)): )+(?=\S)")
_CHATTER = re.compile(r"SLF4J: |WARNING: |Picked up |Traceback |\[.*\] (?:WARN|INFO|DEBUG) |\s")


def explain(text: str, pool: str = "") -> str:
    """One line, of at most 300 characters, for what is said of a job that failed.

    Args:
        text: an exception of Flink, Spark or Beam, or the end of a log, with all of its traces.
        pool: the address of the job's worker pool, which not every trace of Java names.
    """
    known, line = _recognized(text)
    told = known.found_in(line) if known else line
    if pool:
        told = told.replace(f"{_NO_POOL} on", f"{_NO_POOL} at {pool} on")
    return _shortened(told)


def is_hopeless(text: str) -> bool:
    """Whether the same would happen again if the job, or a part of it, were started again."""
    known, _ = _recognized(text)
    return known is not None and known.hopeless


def is_loss(text: str) -> bool:
    """Whether a part of the cluster was lost, so that the same may well succeed once more."""
    known, _ = _recognized(text)
    return known is not None and known.loss


def _recognized(text: str) -> tuple[_Known | None, str]:
    """The problem, if it is known, and what to find it in, or to tell if it is not."""
    in_python = _python_exception(text)
    if in_python and not _MEMORY_ENDED.search(text):
        return _first(_IN_PYTHON, in_python), in_python
    if known := _first(_IN_JAVA, text):
        return known, text
    line = _java_exception(text)
    return _first(_IN_PYTHON, line), line


def _first(problems: Sequence[_Known], text: str) -> _Known | None:
    return next((known for known in problems if known.pattern.search(text)), None)


def _python_exception(text: str) -> str:
    """The exception of the last traceback, as "Type: message"; "" without a traceback."""
    _, found, rest = text.rpartition(_TRACEBACK)
    if not found:
        return ""
    message: list[str] = []
    for line in rest.splitlines()[1:]:
        if message and (not line.strip() or line.startswith(("\t", _CAUSE))):
            break
        # What is indented is the trace, until the exception begins.
        if message or line[:1].strip():
            message.append(line)
    return _plain(" ".join(message))


def _java_exception(text: str) -> str:
    """The innermost exception of a stack trace, or the first line."""
    lines = text.splitlines()
    causes = [_plain(line.removeprefix(_CAUSE)) for line in lines if line.startswith(_CAUSE)]
    told = [line for line in lines if line.strip() and not _CHATTER.match(line)]
    first = _plain(_PIPELINE_FAILED.sub("", told[0])) if told else ""
    return next(filter(None, (*reversed(causes), first)), "it did not say why")


def _plain(text: str) -> str:
    """ "Type: message" without the packages of the type, and without types around it."""
    words = _WHILE.sub("", " ".join(text.split()))
    found = _TYPES.match(words)
    if not found:
        return words
    kind = re.split(r"[.$]", found["type"])[-1]
    return f"{kind}: {words[found.end() :]}"


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"

"""What a small Flink cluster on the loopback is started with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

JOB_MANAGER_HEAP = "512m"

#: The memory of a TaskManager, about 1 GB, which a standalone one has to be told part by part.
TASK_MANAGER_SIZES: Mapping[str, str] = {
    "taskmanager.cpu.cores": "1.0",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.task.heap.size": "256m",
    "taskmanager.memory.framework.off-heap.size": "128m",
    "taskmanager.memory.task.off-heap.size": "0m",
    "taskmanager.memory.network.min": "64m",
    "taskmanager.memory.network.max": "64m",
    "taskmanager.memory.managed.size": "128m",
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "192m",
    "taskmanager.memory.jvm-overhead.max": "192m",
}

#: Settings with which a job goes on after a worker or a TaskManager was lost; by themselves, as in
#: a Flink that nobody has configured, a job ends then. A TaskManager that is gone is given tasks
#: until it is missed, and each time counts as an attempt.
RESTARTS: Mapping[str, str] = {
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "20",
    "restart-strategy.fixed-delay.delay": "1 s",
}

# What Flink 1.19 opens to itself in the configuration that comes with it.
_EXPORTED = (
    "java.base/sun.net.util",
    "java.rmi/sun.rmi.registry",
    "jdk.compiler/com.sun.tools.javac.api",
    "jdk.compiler/com.sun.tools.javac.file",
    "jdk.compiler/com.sun.tools.javac.parser",
    "jdk.compiler/com.sun.tools.javac.tree",
    "jdk.compiler/com.sun.tools.javac.util",
    "java.security.jgss/sun.security.krb5",
)
_OPENED = (
    "java.base/java.lang",
    "java.base/java.net",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/sun.nio.ch",
    "java.base/java.lang.reflect",
    "java.base/java.text",
    "java.base/java.time",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
)
JAVA_OPENS = (
    *(f"--add-exports={name}=ALL-UNNAMED" for name in _EXPORTED),
    *(f"--add-opens={name}=ALL-UNNAMED" for name in _OPENED),
)

LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c{1} - %m%n
"""


def cluster_settings(
    folder: Path, rest_port: int, rpc_port: int, slots: int
) -> dict[str, str | int]:
    """The settings that all of a cluster's processes read.

    A process that is gone is missed after seconds, not after the usual minute.
    """
    return {
        "jobmanager.rpc.address": "localhost",
        "jobmanager.rpc.port": rpc_port,
        "jobmanager.bind-host": "localhost",
        "jobmanager.execution.failover-strategy": "region",
        "taskmanager.host": "localhost",
        "taskmanager.bind-host": "localhost",
        "taskmanager.numberOfTaskSlots": slots,
        "rest.address": "localhost",
        "rest.bind-address": "localhost",
        "rest.port": rest_port,
        "rest.bind-port": str(rest_port),
        "heartbeat.interval": 2000,
        "heartbeat.timeout": 10000,
        "cluster.registration.error-delay": 1000,
        "io.tmp.dirs": str(folder / "tmp"),
        "web.tmpdir": str(folder / "tmp"),
        "web.upload.dir": str(folder / "uploads"),
        "blob.storage.directory": str(folder / "tmp"),
    }


def task_manager_java(sizes: Mapping[str, str]) -> list[str]:
    """The limits of a TaskManager's JVM that its sizes come to."""
    prefix = "taskmanager.memory."
    of = {
        key.removeprefix(prefix): _megabytes(size) for key, size in sizes.items() if prefix in key
    }
    heap = of["framework.heap.size"] + of["task.heap.size"]
    direct = of["framework.off-heap.size"] + of["task.off-heap.size"] + of["network.max"]
    return [
        f"-Xmx{heap}m",
        f"-Xms{heap}m",
        f"-XX:MaxDirectMemorySize={direct}m",
        f"-XX:MaxMetaspaceSize={of['jvm-metaspace.size']}m",
    ]


def _megabytes(size: str) -> int:
    return int(size.removesuffix("m"))

"""Which Java to start, and whether it is new enough."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass

from candlebeam.cluster.programs import first_line, run_program
from candlebeam.errors import CandlebeamError

_HOW = "set JAVA_HOME to a Java of version {least} or newer"

#: What Flink and Spark reach into and modules of Java 17 and newer would keep closed: the lists
#: that the two give to their own JVMs, in one. Older Javas take them as well.
MODULE_OPTIONS: tuple[str, ...] = (
    *(
        f"--add-exports={package}=ALL-UNNAMED"
        for package in (
            "java.base/sun.net.util",
            "java.rmi/sun.rmi.registry",
            "java.security.jgss/sun.security.krb5",
        )
    ),
    *(
        f"--add-opens={package}=ALL-UNNAMED"
        for package in (
            "java.base/java.io",
            "java.base/java.lang",
            "java.base/java.lang.invoke",
            "java.base/java.lang.reflect",
            "java.base/java.net",
            "java.base/java.nio",
            "java.base/java.text",
            "java.base/java.time",
            "java.base/java.util",
            "java.base/java.util.concurrent",
            "java.base/java.util.concurrent.atomic",
            "java.base/java.util.concurrent.locks",
            "java.base/jdk.internal.ref",
            "java.base/sun.nio.ch",
            "java.base/sun.nio.cs",
            "java.base/sun.security.action",
            "java.base/sun.util.calendar",
            "java.security.jgss/sun.security.krb5",
        )
    ),
    "-Djdk.reflect.useDirectMethodHandle=false",
)


@dataclass(frozen=True)
class Java:
    """A Java that was tried: the path of its launcher, and its version (17 of "17.0.15")."""

    path: str
    major: int


def find_java(launcher: str = "java", *, least: int = 11, seconds: float = 20) -> Java:
    """The Java to use: `launcher` if it says more than "java", else JAVA_HOME's, else PATH's.

    Args:
        least: the oldest version that will do.
        seconds: how long it may take to tell its version.

    Raises:
        CandlebeamError: there is none, it does not run, or it is too old.
    """
    how = _HOW.format(least=least)
    path = _launcher_path(launcher, how)
    try:
        code, output = run_program([path, "-version"], seconds)
    except TimeoutError:
        raise CandlebeamError(f"{path} -version did not end within {seconds:g} s: {how}") from None
    except OSError as error:
        raise CandlebeamError(f"cannot run {path}: {error.strerror or error}: {how}") from None
    if code != 0:
        raise CandlebeamError(
            f"{path} -version failed with exit code {code} ({first_line(output)}): {how}"
        )
    major = major_version(output)
    if major is None:
        raise CandlebeamError(f"{path} -version told no version but {first_line(output)!r}: {how}")
    if major < least:
        raise CandlebeamError(
            f"{path} is Java {major}; Flink and Spark need Java {least} or newer: "
            "set JAVA_HOME to one"
        )
    return Java(path, major)


def major_version(output: str) -> int | None:
    """The version in what `java -version` prints, None if there is none.

    >>> major_version('openjdk version "17.0.15" 2025-04-15')
    17
    >>> major_version('java version "1.8.0_402"')
    8
    >>> major_version('openjdk version "21-ea" 2023-09-19')
    21
    """
    found = re.search(r'\bversion "(?:1\.)?(\d{1,4})[^"]*"', output)
    return int(found[1]) if found else None


def _launcher_path(launcher: str, how: str) -> str:
    if launcher != "java":
        found = shutil.which(launcher)
        if not found:
            raise CandlebeamError(f"the Java launcher {launcher} is no program that can be run")
        return found
    if home := os.environ.get("JAVA_HOME"):
        path = os.path.join(home, "bin", "java")
        if not os.path.isfile(path):
            raise CandlebeamError(
                f"JAVA_HOME is {home}, but there is no {path}: {how}, or unset it"
            )
        return path
    found = shutil.which("java")
    if not found:
        raise CandlebeamError(
            "found no Java: JAVA_HOME is not set and there is no java on PATH; "
            "install Java 11, 17 or 21, or " + how
        )
    return found

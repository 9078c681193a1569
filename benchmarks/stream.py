"""Measure `candlebeam stream` on Flink inside its process, and `backfill --follow`.

Parts, each of which can be run alone:

- rate: 200,000 trades a second over 100 markets, for some minutes: whether it keeps up;
- latency: 20,000 a second: how long after the end of its minute a candle is on disk;
- soak: days of event time in minutes: memory, open files and state;
- follow: processor time of a round of `--follow` with nothing new, on 40,000 files.

When a candle is on disk is the time of change of its companion, by the same clock as the trades.
With --write, STREAM.md gets the report.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks.benches import CORES
from benchmarks.cache import cache_folder
from benchmarks.follow import MOST_SECONDS, measure_follow
from benchmarks.measure import busy_seconds, timed_environment
from benchmarks.process_watch import cpu_seconds, resident_bytes, tree
from benchmarks.report import machine
from clusters import jars

PARTS = ("rate", "latency", "soak", "follow")
HERE = Path(__file__).parent
CONFIG = HERE.parent / "runner_configs/flink-stream.yaml"
RATE, SLOW_RATE, MARKETS = 200_000, 20_000, 100
#: A candle is to be on disk so soon, s, in 99 of 100 cases.
MOST_LATENCY = 2.0
#: Whoever is so far behind at the end has not kept up, s.
BEHIND = 10.0
_LOOK_SECONDS = 0.05
_MINUTE_MS = 60_000


@dataclass
class Streamed:
    """What a stream came to.

    Attributes:
        rows: trades that were written.
        seconds: for so long.
        latencies: seconds from the end of each candle to when it was on disk, in the order of time.
        left: trades that are not in a candle a minute and more after the last was written.
        cpu: cores that its processes took on average.
        memory: bytes of memory (RSS) of all its processes, once a second.
        files: open files of all its processes, once a second.
        others: the share of the cores' time that others took, the feeder among them, 0 to 1.
    """

    rows: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    left: int = 0
    cpu: float = 0.0
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    others: float = 0.0

    def percentile(self, share: float) -> float:
        """The latency that a share of candles does not exceed, s."""
        return float(np.quantile(self.latencies, share)) if self.latencies else float("nan")

    def thirds(self, values: list[int]) -> tuple[float, float]:
        """The median of the second third of values and of the last: the first is the start."""
        third = len(values) // 3
        return float(np.median(values[third : 2 * third])), float(np.median(values[2 * third :]))


def measure_stream(
    rate: float, seconds: float, *, markets: int = MARKETS, speed: float = 1.0
) -> Streamed:
    """Streams what is written at a rate for some seconds."""
    found = Streamed(seconds=seconds)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".stream-") as name:
        root, out = Path(name) / "root", Path(name) / "out"
        root.mkdir()
        clock = _clock(speed)
        with _stream(root, out, clock) as stream:
            # Some trades a market, so that everything is there and compiled.
            before = int(_feed(root, markets, markets * 20, 1.0, clock).communicate()[0])
            _await(stream, lambda: len(_companions(out)) == markets or speed == 1.0)
            time.sleep(15 if speed == 1.0 else 3)
            begun, busy = time.time(), busy_seconds()
            cpu = _tree_cpu(stream.pid)
            feeder = _feed(root, markets, rate, seconds, clock)
            ends: dict[Path, int] = {path: _end(path) for path in _companions(out)}
            next_look = 0.0
            while feeder.poll() is None or time.time() < begun + seconds + (
                75 if speed == 1.0 else 5
            ):
                _look(out, ends, found, begun, is_timed=speed == 1.0)
                if time.time() > next_look:
                    next_look = time.time() + 1
                    pids = tree(stream.pid)
                    found.memory.append(sum(map(resident_bytes, pids)))
                    found.files.append(sum(map(_open_files, pids)))
                time.sleep(_LOOK_SECONDS)
                if stream.poll() is not None:
                    raise RuntimeError(f"the stream has ended with {stream.returncode}")
            wall = time.time() - begun
            found.cpu = (_tree_cpu(stream.pid) - cpu) / wall
            others = busy_seconds() - busy - (_tree_cpu(stream.pid) - cpu)
            found.others = max(others, 0.0) / (wall * CORES)
            written, _ = feeder.communicate()
            if feeder.returncode:
                raise RuntimeError(f"the feeder has ended with {feeder.returncode}")
            found.rows = int(written)
            _await(stream, lambda: _missing(out, found.rows + before) == 0, seconds=30)
            found.left = _missing(out, found.rows + before)
    return found


def _clock(speed: float) -> tuple[float, float, float] | None:
    if speed == 1.0:
        return None
    begin = datetime(2024, 3, 1, tzinfo=timezone.utc).timestamp() * 1000
    return begin, time.time(), speed


@contextmanager
def _stream(
    root: Path, out: Path, clock: tuple[float, float, float] | None
) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        *(sys.executable, "-m", "candlebeam", "stream", "--root", str(root), "--out", str(out)),
        *("--runner-config", str(CONFIG), f"--flink_job_server_jar={jars.flink_job_server()}"),
    ]
    if clock is not None:
        begin = datetime.fromtimestamp((clock[0] / 1000), timezone.utc)
        passed = (time.time() - clock[1]) * clock[2]
        begin = datetime.fromtimestamp(clock[0] / 1000 + passed, timezone.utc)
        # A market is quiet after as long as ever, by the clock on the wall.
        command += ["--clock", f"{begin.isoformat()},{clock[2]}", "--idle", f"{5 * clock[2]:.0f}s"]
    process = subprocess.Popen(
        command, env=timed_environment(), stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        with_children = tree(process.pid)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            for pid in with_children:
                os.kill(pid, signal.SIGKILL)
            process.wait()


def _feed(
    root: Path,
    markets: int,
    rate: float,
    seconds: float,
    clock: tuple[float, float, float] | None,
) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-m", "benchmarks.live_feeder", str(root)),
        *("--markets", str(markets), "--rate", str(rate), "--seconds", str(seconds)),
    ]
    if clock is not None:
        command += ["--clock", *map(str, clock)]
    return subprocess.Popen(command, env=timed_environment(), stdout=subprocess.PIPE)


def _await(process: subprocess.Popen[bytes], holds: object, seconds: float = 120) -> None:
    assert callable(holds)
    deadline = time.time() + seconds
    while not holds() and time.time() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the stream has ended with {process.returncode}")
        time.sleep(0.5)


def _companions(out: Path) -> list[Path]:
    return [path for path in out.glob("*/*/*.json") if not path.name.startswith(".")]


def _end(path: Path) -> int:
    return int(json.loads(path.read_bytes())["endTs"])


def _look(out: Path, ends: dict[Path, int], found: Streamed, begun: float, is_timed: bool) -> None:
    """Notes the candles that have come since the look before."""
    if not is_timed:
        return
    for path in _companions(out):
        changed = path.stat().st_mtime
        if changed < begun or changed == ends.get(path):
            continue
        end = _end(path)
        before = ends.get(path, 0)
        if end > before:
            ends[path] = end
            # The last closes by the clock alone, some seconds late: nothing comes any more.
            if begun < end / 1000 < begun + found.seconds:
                found.latencies.append(changed - end / 1000)


def _missing(out: Path, rows: int) -> int:
    """Trades that are in no candle."""
    from candlebeam.formats.candles.records import RECORD_DTYPE

    there = 0
    for path in out.glob("*/*/*.bin"):
        records = np.fromfile(path, RECORD_DTYPE)
        there += int(records["buy_count"].sum()) + int(records["sell_count"].sum())
    return rows - there


def _tree_cpu(pid: int) -> float:
    return sum(map(cpu_seconds, tree(pid)))


def _open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--seconds", type=float, default=180, help="how long each part writes")
    parser.add_argument("--write", action="store_true", help="write STREAM.md")
    options = parser.parse_args()
    lines = [_HEAD.format(day=datetime.now(timezone.utc), machine=machine(CORES))]
    missed = False
    for part in options.only:
        rows, misses = _measured(part, options.seconds)
        lines += rows
        missed = missed or misses
        print("\n".join(rows), flush=True)
    if options.write:
        (HERE / "STREAM.md").write_text("\n".join(lines) + "\n")
    sys.exit(int(missed))


_HEAD = """\
# Streams: benchmark results

Written by `make bench-stream BENCH_ARGS=--write`; README.md beside this file says how it is
measured.

- {day:%Y-%m-%d} (UTC), {machine}
- Flink inside the process of the command, parallelism 2, runner_configs/flink-stream.yaml

| part | figure | to reach | measured | |
| --- | --- | ---: | ---: | --- |"""


def _row(part: str, figure: str, target: str, measured: str, misses: bool | None) -> str:
    verdict = "" if misses is None else "**missed**" if misses else "reached"
    return f"| {part} | {figure} | {target} | {measured} | {verdict} |"


def _measured(part: str, seconds: float) -> tuple[list[str], bool]:
    if part == "follow":
        quiet = measure_follow()
        measured = f"{quiet.cpu:.3f} s"
        what = f"processor time of a round with nothing new, {quiet.files:,} files"
        target = f"at most {MOST_SECONDS} s"
        return [_row(part, what, target, measured, quiet.misses)], quiet.misses
    if part == "soak":
        speed = 1440.0
        found = measure_stream(20_000, seconds, markets=20, speed=speed)
        days = seconds * speed / 86400
        (memory, memory_last), (files, files_last) = map(found.thirds, (found.memory, found.files))
        grows = memory_last > 1.1 * memory or files_last > files + 5
        return [
            _row(part, f"memory, {days:.1f} days of 20 markets", "flat (10 %)",
                 f"{memory / 1e6:.0f} MB, at the end {memory_last / 1e6:.0f} MB", grows),
            _row(part, "open files", "flat", f"{files:.0f}, at the end {files_last:.0f}", grows),
            _row(part, f"trades of {found.rows:,} in no candle", "0 but those of the last minute",
                 f"{found.left:,}", None),
        ], grows  # fmt: skip
    rate = RATE if part == "rate" else SLOW_RATE
    found = measure_stream(rate, seconds)
    half = len(found.latencies) // 2
    later = float(np.median(found.latencies[half:])) if half else float("nan")
    busy = f"{found.cpu:.2f} cores; others {found.others:.0%} of the machine"
    rows = []
    if part == "rate":
        misses = found.left > 0 or not later < BEHIND
        rows.append(
            _row(part, f"{RATE:,} trades/s of {MARKETS} markets for {seconds:.0f} s",
                 "keeps up", f"{found.left:,} of {found.rows:,} trades missing in the end", misses)
        )  # fmt: skip
    else:
        misses = not found.percentile(0.99) <= MOST_LATENCY
    rows += [
        _row(part, f"candle on disk, 99 of 100 ({len(found.latencies)} candles)",
             f"{MOST_LATENCY} s" if part == "latency" else "", f"{found.percentile(0.99):.2f} s",
             misses if part == "latency" else None),
        _row(part, "the same, median", "", f"{found.percentile(0.5):.2f} s", None),
        _row(part, "processors", "", busy, None),
        _row(part, "memory", "", f"{max(found.memory) / 1e6:.0f} MB", None),
    ]  # fmt: skip
    return rows, misses


if __name__ == "__main__":
    main()

"""`agg2 pack`: archives are whole after any crash, and nothing that was there is lost."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from itertools import chain
from pathlib import Path
from random import Random

import pytest

from candlebeam.errors import FormatError
from candlebeam.formats.agg2.reader import read_index
from candlebeam.io.agg2_writer import write_day
from candlebeam.pipelines import agg2_pack
from candlebeam.pipelines.lock import output_lock
from tests.agg2_blobs import AggRow, MonthFolder, blob, zstd
from tests.agg2_lines import (
    START,
    Line,
    assert_whole,
    day_lines,
    files_of,
    read,
    records,
    seen,
    trades,
    truncated_rows,
    write_csv,
)
from tests.command_line import Outcome, run_here, run_process
from tests.failing_disk import FailingDisk
from tests.faults import KillHost


def pack(out: Path, *paths: Path, options: tuple[object, ...] = ()) -> Outcome:
    return run_here("agg2", "pack", *paths, "--out", out, *options)


# Packing


def test_files_become_days(tmp_path: Path) -> None:
    days = [day_lines(n) for n in range(3)]
    paths = [
        write_csv(tmp_path, f"BTCUSDT-aggTrades-2024-01-0{5 + n}.{kind}", lines)
        for n, (kind, lines) in enumerate(zip(("zip", "csv", "zip"), days, strict=True))
    ]
    outcome = pack(tmp_path / "out", *reversed(paths)).expect()
    assert outcome.stdout == "3 files: 90 rows\n3 days: 3 written\n"
    assert outcome.stderr == ""
    assert_whole(tmp_path / "out", {f"2024/01/0{5 + n}": days[n] for n in range(3)})


def test_a_blob_is_the_bytes_of_its_rows(tmp_path: Path) -> None:
    lines = [
        Line(7, "0.29", "1.005", 9, 11, START + 5, True),
        Line(8, "0.00000001", "92233720368.54775807", 12, 12, START + 6, False),
    ]
    pack(tmp_path / "out", write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-05.csv", lines)).expect()
    month = MonthFolder(tmp_path / "out", "BTCUSDT", 2024, 1)
    rows = [
        AggRow(7, 29_000_000, 100_500_000, 9, 3, 1, START + 5, 0),
        AggRow(8, 1, 2**63 - 1, 12, 1, 0, START + 6, 1),
    ]
    assert month.data.read_bytes() == zstd(blob(rows, 5, padding=b"exact"))
    assert month.index.read_bytes() == struct.pack("<HQQ", 5, 0, month.data.stat().st_size)


def test_a_month_becomes_its_days_and_months_their_folders(tmp_path: Path) -> None:
    days = {n: day_lines(n) for n in (0, 1, 26, 27)}
    lines = [line for each in days.values() for line in each]
    path = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01.zip", lines)
    outcome = pack(tmp_path / "out", path).expect()
    assert "4 days: 4 written" in outcome.stdout
    assert outcome.stderr == (f"candlebeam: {path}: 30 rows of other days than its name says\n")
    names = {0: "2024/01/05", 1: "2024/01/06", 26: "2024/01/31", 27: "2024/02/01"}
    assert_whole(tmp_path / "out", {names[n]: days[n] for n in days})


def test_files_of_several_symbols_are_kept_apart(tmp_path: Path) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT_240628"):
        write_csv(tmp_path, f"{symbol}-aggTrades-2024-01-05.csv", day_lines(0, seed=len(symbol)))
    pack(tmp_path / "out", *tmp_path.glob("*.csv")).expect()
    for symbol in ("BTCUSDT", "ETHUSDT_240628"):
        lines = day_lines(0, seed=len(symbol))
        assert read(tmp_path / "out", symbol)[0] == {"2024/01/05": trades(lines)}


def test_symbol_can_be_given(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "trades.csv", day_lines(0))
    outcome = pack(tmp_path / "out", path)
    assert outcome.code == 2
    assert outcome.stderr == (
        f"candlebeam: {path}: expected a name such as BTCUSDT-aggTrades-2024-01-05.zip, or"
        " --symbol\n"
    )
    pack(tmp_path / "out", path, options=("--symbol", "XYZ")).expect()
    assert read(tmp_path / "out", "XYZ")[0] == {"2024/01/05": trades(day_lines(0))}


@pytest.mark.parametrize("symbol", ["..", ".x", "a/b", "a\\b", "a\n"])
def test_a_symbol_cannot_name_a_place_elsewhere(tmp_path: Path, symbol: str) -> None:
    path = write_csv(tmp_path, "trades.csv", day_lines(0))
    outcome = pack(tmp_path / "out", path, options=("--symbol", symbol))
    assert outcome.code == 2
    assert "expected what can be the name of a folder" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_rejected_rows_are_counted_and_named(tmp_path: Path) -> None:
    lines = day_lines(0)
    bad = [f"9{n},-1,1,1,1,{START},true" for n in range(7)] + [f"99,1,1,9,7,{START},true"]
    path = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-05.csv", lines, *bad)
    report = tmp_path / "report.json"
    outcome = pack(tmp_path / "out", path, options=("--report", report)).expect()
    assert outcome.stdout == (
        "1 file: 30 rows\nrejected rows: price 7, count 1\n1 day: 1 written\n"
    )
    assert outcome.stderr.splitlines()[:2] == [
        f"candlebeam: {path}, line 32: price: -1",
        f"candlebeam: {path}, line 33: price: -1",
    ]
    assert "... 3 more rejected rows; --report names all of them" in outcome.stderr
    found = outcome.report["files"][0]["rejects"]
    assert found[-1] == {"line": 39, "reason": "count", "found": "first id 9, last id 7"}
    assert outcome.report["totals"]["rejected"] == {"price": 7, "count": 1}
    assert_whole(tmp_path / "out", {"2024/01/05": lines})


def test_one_file_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    good = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-06.zip", day_lines(1))
    bad = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-05.zip", day_lines(0, 3_000))
    data = bytearray(bad.read_bytes())
    data[5_000] ^= 0xFF
    bad.write_bytes(data)
    missing = tmp_path / "BTCUSDT-aggTrades-2024-01-07.zip"
    outcome = pack(tmp_path / "out", bad, good, missing).expect(1)
    assert f"candlebeam: {bad}: failed: {bad}: expected a whole zip file, found" in outcome.stderr
    assert f"candlebeam: {missing}: failed: No such file or directory" in outcome.stderr
    assert_whole(tmp_path / "out", {"2024/01/06": day_lines(1)})


# Again


def test_packing_again_changes_nothing(tmp_path: Path) -> None:
    paths = [
        write_csv(tmp_path, f"BTCUSDT-aggTrades-2024-01-0{5 + n}.zip", day_lines(n))
        for n in range(3)
    ]
    out = tmp_path / "out"
    pack(out, *paths[:2]).expect()
    before = files_of(out)
    assert pack(out, *paths[:2]).expect().stdout == "2 files: 60 rows\n2 days: 2 up to date\n"
    assert files_of(out) == before
    assert "3 days: 1 written, 2 up to date" in pack(out, *paths).expect().stdout
    assert_whole(out, {f"2024/01/0{5 + n}": day_lines(n) for n in range(3)})


def test_more_rows_of_a_day_are_written_behind_and_indexed_first(tmp_path: Path) -> None:
    name = "BTCUSDT-aggTrades-2024-01-05.csv"
    out = tmp_path / "out"
    lines = day_lines(0, 50)
    pack(out, write_csv(tmp_path, name, lines[:20])).expect()
    other = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-06.csv", day_lines(1))
    pack(out, other).expect()
    before = files_of(out)
    pack(out, write_csv(tmp_path, name, lines)).expect()
    after = files_of(out)
    data, index = "BTCUSDT/2024/01/data.quantdev", "BTCUSDT/2024/01/index.quantdev"
    assert after[data].startswith(before[data])
    rows = read_index(str(out / "BTCUSDT/2024/01")).rows
    assert [row.day for row in rows] == [5, 5, 6]
    assert rows[0].offset == len(before[data])
    assert after[index][18:] == before[index]
    assert_whole(out, {"2024/01/05": lines, "2024/01/06": day_lines(1)})


def test_a_part_of_a_day_takes_nothing_away(tmp_path: Path) -> None:
    name = "BTCUSDT-aggTrades-2024-01-05.csv"
    out = tmp_path / "out"
    lines = day_lines(0, 50)
    pack(out, write_csv(tmp_path, name, lines)).expect()
    before = files_of(out)
    outcome = pack(out, write_csv(tmp_path, name, lines[10:20])).expect()
    assert "1 day: 1 up to date" in outcome.stdout
    assert "BTCUSDT 2024-01-05: 40 rows of before kept that the input lacks" in outcome.stderr
    assert files_of(out) == before
    changed = [replace(line, price="5.55") for line in lines[10:20]]
    pack(out, write_csv(tmp_path, name, changed)).expect()
    assert_whole(out, {"2024/01/05": lines[:10] + changed + lines[20:]})


def test_files_that_overlap_give_each_row_once(tmp_path: Path) -> None:
    days = [day_lines(n) for n in range(3)]
    month = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01.zip", [*chain(*days)])
    day = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-06.csv", days[1])
    outcome = pack(tmp_path / "out", day, month).expect()
    assert "4 days" not in outcome.stdout
    assert_whole(tmp_path / "out", {f"2024/01/0{5 + n}": days[n] for n in range(3)})
    doubled = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-09.csv", day_lines(4) + day_lines(4))
    outcome = pack(tmp_path / "out", doubled).expect()
    assert "BTCUSDT 2024-01-09: 30 repeated rows taken once" in outcome.stderr


@pytest.mark.parametrize("waiting", [1, 40, 10**6])
def test_rows_in_any_order_come_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    """However few rows may wait, days that come in bits are put together."""
    monkeypatch.setattr(agg2_pack, "WAITING_ROWS", waiting)
    days = [day_lines(n, 60) for n in range(3)]
    lines = [*chain(*days)]
    Random(waiting).shuffle(lines)
    paths = [
        write_csv(tmp_path, f"BTCUSDT-aggTrades-2024-0{1 + n}.csv", lines[n::2]) for n in range(2)
    ]
    out = tmp_path / "out"
    outcome = pack(out, *paths).expect()
    assert "3 days: 3 written" in outcome.stdout
    assert "kept" not in outcome.stderr
    assert_whole(out, {f"2024/01/0{5 + n}": days[n] for n in range(3)})


# Archives of others


def test_rows_of_another_writer_are_kept_as_what_they_stand_for(tmp_path: Path) -> None:
    lines = day_lines(0, 50)
    assert any(row.px % 10 for row in truncated_rows(lines))
    out = tmp_path / "out"
    month = MonthFolder(out, "BTCUSDT", 2024, 1)
    micros = [row._replace(ts=row.ts * 1000 + 7) for row in truncated_rows(lines)]
    month.add_rows(micros, 5)
    path = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-05.csv", lines[:20])
    assert "1 day: 1 written" in pack(out, path).expect().stdout
    assert_whole(out, {"2024/01/05": lines})
    path = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-05.csv", lines)
    assert "1 day: 1 up to date" in pack(out, path).expect().stdout


def test_a_damaged_day_is_written_again_with_what_could_be_read_of_it(tmp_path: Path) -> None:
    lines = day_lines(0, 50)
    out = tmp_path / "out"
    month = MonthFolder(out, "BTCUSDT", 2024, 1)
    raw = blob(truncated_rows(lines), 5)
    month.add(zstd(raw[: 48 + 48 * 30 + 7]), 5)
    path = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-05.csv", lines[25:])
    pack(out, path).expect()
    assert_whole(out, {"2024/01/05": lines})


def test_torn_ends_are_left_behind(tmp_path: Path) -> None:
    """What a crash has left in the data stays there; what it has left in the index goes."""
    out = tmp_path / "out"
    month = MonthFolder(out, "BTCUSDT", 2024, 1)
    month.add_rows(truncated_rows(day_lines(0)), 5)
    # A row without its data, for which the next blob must not be taken; and a torn one.
    month.add(b"", 7, length=400)
    with month.data.open("ab") as data:
        data.write(b"torn")
    with month.index.open("ab") as index:
        index.write(b"\7\0\0")
    size = month.data.stat().st_size
    path = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-06.csv", day_lines(1))
    pack(out, path).expect()
    index_rows = read_index(str(month.path))
    assert index_rows.damage is None
    assert [(row.day, row.offset) for row in index_rows.rows] == [(5, 0), (7, size - 4), (6, size)]
    found, outcomes = read(out)
    assert found["2024/01/05"] == trades(day_lines(0))
    assert found["2024/01/06"] == trades(day_lines(1))
    assert found["2024/01/07"] == []
    assert [outcome.damage is None for outcome in outcomes] == [True, True, False]


def test_index_rows_that_point_behind_the_data_go(tmp_path: Path) -> None:
    month = MonthFolder(tmp_path, "BTCUSDT", 2024, 1)
    month.add(b"", 7, length=400)
    write_day(str(tmp_path), "BTCUSDT", date(2024, 1, 5), records(day_lines(0)))
    assert [row.day for row in read_index(str(month.path)).rows] == [5]


def test_an_index_with_a_torn_end_is_cut_though_the_day_is_there(tmp_path: Path) -> None:
    rows = records(day_lines(0))
    write_day(str(tmp_path), "BTCUSDT", date(2024, 1, 5), rows)
    index = tmp_path / "BTCUSDT/2024/01/index.quantdev"
    whole = index.read_bytes()
    index.write_bytes(whole + b"\1")
    assert not write_day(str(tmp_path), "BTCUSDT", date(2024, 1, 5), rows).changed
    assert index.read_bytes() == whole


def test_an_archive_of_another_kind_is_not_written_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    month = MonthFolder(out, "BTCUSDT", 2024, 1)
    month.add_checked([(5, blob(truncated_rows(day_lines(0)), 5, magic=b"AGG3"))])
    before = files_of(out)
    january = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-06.csv", day_lines(1))
    february = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-02-01.csv", day_lines(27))
    outcome = pack(out, january, february).expect(1)
    assert "2 days: 1 written, 1 failed" in outcome.stdout
    assert (
        f"BTCUSDT 2024-01-06: failed: {month.index} at byte 0: expected an index of AGG2, which is"
        " all that is written, found QIDX"
    ) in outcome.stderr
    after = files_of(out)
    assert {name: after[name] for name in before} == before
    month.index.write_bytes(b"QIX9" + bytes(50))
    with pytest.raises(FormatError, match="expected rows of a day from 1 to 31"):
        write_day(str(out), "BTCUSDT", date(2024, 1, 5), records(day_lines(0)))


def test_only_one_writes_at_a_time(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-05.csv", day_lines(0))
    with output_lock(str(tmp_path / "out")):
        outcome = pack(tmp_path / "out", path)
    assert outcome.code == 1
    assert "is writing here" in outcome.stderr


# Crashes


def old_archive(folder: Path) -> None:
    """Days 5 and 6, the first without all of its rows, and ends that a crash has torn."""
    write_day(str(folder), "BTCUSDT", date(2024, 1, 6), records(day_lines(1)))
    write_day(str(folder), "BTCUSDT", date(2024, 1, 5), records(day_lines(0, 50)[:20]))
    month = folder / "BTCUSDT/2024/01"
    with (month / "data.quantdev").open("ab") as data:
        data.write(b"(\xb5/\xfdtorn")
    with (month / "index.quantdev").open("ab") as index:
        index.write(struct.pack("<HQQ", 7, 10**6, 100) + b"\7")


def nothing(folder: Path) -> None:
    folder.mkdir(parents=True)


CASES: dict[str, tuple[Callable[[Path], None], int, int]] = {
    # What is there, which day is written, how many rows of day 5 there are before.
    "a first day": (nothing, 0, 0),
    "another day": (old_archive, 2, 20),
    "more rows of a day": (old_archive, 0, 20),
}


@pytest.mark.parametrize("kill", [False, True], ids=["fails", "is killed"])
@pytest.mark.parametrize("name", CASES)
def test_a_write_that_ends_at_any_call_leaves_the_old_day_or_the_new(
    tmp_path: Path, name: str, kill: bool
) -> None:
    prepare, day, rows_before = CASES[name]
    lines = day_lines(day, 50)
    when = date(2024, 1, 5 + day)
    ends = []
    for at in range(1, 100):
        out = tmp_path / str(at)
        prepare(out)
        old = {}
        if rows_before:
            old = {"2024/01/05": day_lines(0, 50)[:20], "2024/01/06": day_lines(1)}
        new = {**old, f"2024/01/{5 + day:02d}": lines}
        with FailingDisk(at, kill=kill) as disk:
            write_day(str(out), "BTCUSDT", when, records(lines))
        if not disk.failed:
            break
        found = seen(out)
        assert found in ({d: trades(ls) for d, ls in days.items()} for days in (old, new))
        write_day(str(out), "BTCUSDT", when, records(lines))
        assert seen(out) == {d: trades(ls) for d, ls in new.items()}
        ends.append(found != {d: trades(ls) for d, ls in old.items()})
        files = files_of(out)
        assert not write_day(str(out), "BTCUSDT", when, records(lines)).changed
        assert files_of(out) == files
        assert set(files) == {f"BTCUSDT/2024/01/{n}.quantdev" for n in ("data", "index")}
    # Once the new day is there it stays.
    assert ends == sorted(ends)
    assert len(ends) >= 7
    assert False in ends


def test_nothing_counts_before_it_is_on_disk(tmp_path: Path) -> None:
    """The data is forced to disk before the index names it, and so are the names of both."""
    for number in range(2):
        with FailingDisk() as disk:
            write_day(
                str(tmp_path), "BTCUSDT", date(2024, 1, 5 + number), records(day_lines(number))
            )
        calls = [
            (call, os.path.basename(path or "")) for call, path in disk.calls if call != "open"
        ]
        folders = [("fsync", name) for name in ("2024", "BTCUSDT", tmp_path.name)]
        assert calls == [
            ("pwrite", "data.quantdev"),
            ("fsync", "data.quantdev"),
            ("fsync", "01"),
            *(folders if number == 0 else []),
            ("write", ".index.quantdev.tmp"),
            ("fsync", ".index.quantdev.tmp"),
            ("replace", "index.quantdev"),
            ("fsync", "01"),
        ]


def test_a_full_disk_leaves_no_bytes_behind(tmp_path: Path) -> None:
    write_day(str(tmp_path), "BTCUSDT", date(2024, 1, 5), records(day_lines(0)))
    before = files_of(tmp_path)
    for at in (2, 3):
        with FailingDisk(at) as disk:
            write_day(str(tmp_path), "BTCUSDT", date(2024, 1, 6), records(day_lines(1)))
        assert disk.failed
        assert disk.calls[at - 1][0] in ("pwrite", "fsync")
        assert files_of(tmp_path) == before


@pytest.fixture(scope="module")
def host() -> Iterator[KillHost]:
    with KillHost() as running:
        yield running


def test_a_run_that_is_killed_at_any_call_can_be_run_again(host: KillHost, tmp_path: Path) -> None:
    days = {f"2024/01/0{5 + n}": day_lines(n, 50) for n in range(3)}
    paths = [
        write_csv(tmp_path, f"BTCUSDT-aggTrades-{day.replace('/', '-')}.zip", lines)
        for day, lines in days.items()
    ]
    old = tmp_path / "old"
    old_archive(old)
    out = tmp_path / "out"
    arguments = ("agg2", "pack", *paths, "--out", out)
    before = {"2024/01/05": trades(days["2024/01/05"][:20]), "2024/01/06": trades(day_lines(1))}
    after = {day: trades(lines) for day, lines in days.items()}
    counts = []
    for at in range(1, 200):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(old, out)
        code = host.run(arguments, at)
        if code == 0:
            break
        assert code == -9
        found = seen(out)
        for day, rows in found.items():
            assert rows in (before.get(day), after[day])
        assert set(before) <= set(found)
        counts.append(sum(found.get(day) == rows for day, rows in after.items()))
        pack(out, *paths).expect()
        assert seen(out) == after
        assert pack(out, *paths).expect().stdout.endswith("3 days: 3 up to date\n")
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2, 3}


# The command line


def test_commands_run_as_processes(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "BTCUSDT-aggTrades-2024-01-05.zip", day_lines(0))
    report = tmp_path / "report.json"
    run_process("agg2", "pack", path, "--out", tmp_path / "out", "--report", report).expect()
    assert json.loads(report.read_text())["totals"] == {
        "files": 1,
        "rows": 30,
        "rejected": {},
        "written": 1,
        "up_to_date": 0,
        "failed": 0,
    }
    assert "1 day, 30 rows" in run_process("agg2", "check", tmp_path / "out").expect().stdout
    assert run_process("agg2", "pack", "--out", tmp_path / "out").code == 2

"""`agg2 check`: what an archive holds is told, and what is wrong with it."""

from __future__ import annotations

import struct
from datetime import date
from pathlib import Path

import pytest

from candlebeam.formats.agg2.reader import read_index
from candlebeam.io.agg2_writer import write_day
from tests.agg2_blobs import MonthFolder, blob, zstd
from tests.agg2_lines import (
    DAY_MS,
    day_lines,
    records,
    truncated_rows,
)
from tests.command_line import Outcome, run_here


def check(base: Path, *options: object) -> Outcome:
    return run_here("agg2", "check", base, *options)


def test_check_of_what_pack_makes_finds_nothing_wrong(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for n in range(2):
        write_day(str(out), "BTCUSDT", date(2024, 1, 5 + n), records(day_lines(n)))
    outcome = check(out, "--report", tmp_path / "r.json").expect()
    rows = read_index(str(out / "BTCUSDT/2024/01")).rows
    expected = ""
    for n, row in enumerate(rows):
        lines = day_lines(n)
        expected += (
            f"BTCUSDT 2024-01-0{5 + n}  AGG2  30 rows, {row.length:,} bytes,"
            f" {_clock(lines[0].ts)} to {_clock(lines[-1].ts)}, index row 1 of 1\n"
        )
    assert outcome.stdout == f"{expected}2 days, 60 rows\n"
    assert outcome.stderr == ""
    assert outcome.report["totals"] == {
        "days": 2,
        "damaged": 0,
        "rows": 60,
        "bytes": rows[0].length + rows[1].length,
        "unreferenced_bytes": 0,
    }
    day = outcome.report["days"][0]
    assert (day["first_ts"], day["last_ts"]) == (day_lines(0)[0].ts, day_lines(0)[-1].ts)
    assert (day["price_step"], day["damage"], day["contradictions"]) == (None, None, [])


def _clock(ts: int) -> str:
    second, ms = divmod(ts % DAY_MS, 1000)
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.{ms:03d}"


def test_check_names_damage_and_contradictions(tmp_path: Path) -> None:
    month = MonthFolder(tmp_path, "BTCUSDT", 2024, 1)
    rows = truncated_rows(day_lines(0))
    month.add(zstd(blob(rows, 5)[:-48]), 5)
    first = blob(truncated_rows(day_lines(1)), 6)
    month.add(zstd(first[:16] + struct.pack("<qq", 1, 2) + first[32:]), 6)
    month.add(b"nonsense", 7)
    month.add_rows(truncated_rows(day_lines(2)), 7)
    with month.data.open("ab") as data:
        data.write(b"x" * 1234)
    odd = truncated_rows(day_lines(3))
    odd[3] = odd[3]._replace(px=0)
    odd[4] = odd[4]._replace(side=odd[4].flags & 1)
    odd[5] = odd[5]._replace(ts=5)
    odd[6] = odd[6]._replace(ts=odd[6].ts * 1000)
    odd[7] = odd[7]._replace(ts=odd[7].ts - DAY_MS)
    month.add_rows([*odd, odd[0], odd[1]], 8)
    month.add(b"also nonsense", 9)
    (tmp_path / "readme").touch()
    outcome = check(tmp_path, "--report", tmp_path / "r.json").expect(1)
    days = {day["day"]: day for day in outcome.report["days"]}
    assert days["2024-01-05"]["damage"] == "expected 30 rows, found 29"
    assert days["2024-01-05"]["rows"] == 29
    assert days["2024-01-05"]["price_step"] == "0.01"
    assert days["2024-01-05"]["quantity_step"] == "0.001"
    assert days["2024-01-06"]["damage"] is None
    times = [line.ts for line in day_lines(1)]
    assert days["2024-01-06"]["contradictions"] == [
        f"its header says 1 to 2, its rows are from {min(times)} to {max(times)}"
    ]
    assert days["2024-01-07"]["damage"] is None
    assert (days["2024-01-07"]["index_row"], days["2024-01-07"]["index_rows"]) == (2, 2)
    assert days["2024-01-07"]["contradictions"][0].startswith("passed over index row 1 of 2: exp")
    assert days["2024-01-08"]["contradictions"] == [
        "1 row without a valid time",
        "1 row of another day",
        "1 row without a price",
        "1 row whose side contradicts its flags",
        "1 row in microseconds",
    ]
    assert (days["2024-01-08"]["unsorted"], days["2024-01-08"]["duplicates"]) == (2, 2)
    assert days["2024-01-09"]["format"] is None
    assert outcome.report["months"] == [
        {
            "path": "BTCUSDT/2024/01",
            "data_bytes": month.data.stat().st_size,
            "unreferenced_bytes": 1234,
            "overlapping_bytes": 0,
            "damage": None,
        }
    ]
    text = outcome.stdout
    assert "  damaged: expected 30 rows, found 29\n" in text
    assert "BTCUSDT 2024-01-09  damaged\n  damaged: no blob of the day can be read: " in text
    assert "  2 repeated rows\n  2 rows older than the one before\n" in text
    size = f"{month.data.stat().st_size:,}"
    assert f"BTCUSDT/2024/01  no index row points to 1,234 of {size} bytes\n" in text
    assert "1 skipped, no part of an archive: readme\n" in text
    assert text.endswith("5 days, 2 damaged, 121 rows\n")


def test_check_tells_rows_of_several_days_that_point_to_the_same(tmp_path: Path) -> None:
    month = MonthFolder(tmp_path, "BTCUSDT", 2024, 1)
    data = zstd(blob(truncated_rows(day_lines(0)), 5))
    month.add(data, 5)
    with month.index.open("ab") as index:
        index.write(struct.pack("<HQQ", 6, 10, len(data) - 10))
        index.write(struct.pack("<HQQ", 5, 0, len(data)))
    outcome = check(tmp_path).expect(1)
    text = f"rows of several days point to the same {len(data) - 10:,} bytes"
    assert text in outcome.stdout


@pytest.mark.parametrize("magic", [b"AGG2", b"AGG3"])
def test_check_reads_checked_archives(tmp_path: Path, magic: bytes) -> None:
    month = MonthFolder(tmp_path, "BTCUSDT", 2024, 1)
    month.add_checked([(5, blob(truncated_rows(day_lines(0)), 5, magic=magic))])
    assert f"BTCUSDT 2024-01-05  {magic.decode()}  30 rows" in check(tmp_path).expect().stdout
    index = bytearray(month.index.read_bytes())
    index[-1] ^= 1
    month.index.write_bytes(index)
    assert "damaged: expected checksum " in check(tmp_path).expect(1).stdout


def test_check_goes_on_without_files(tmp_path: Path) -> None:
    good = MonthFolder(tmp_path, "BTCUSDT", 2024, 3)
    good.add_rows(truncated_rows(day_lines(0)), 5)
    MonthFolder(tmp_path, "BTCUSDT", 2024, 1).add_rows(truncated_rows(day_lines(0)), 5)
    (tmp_path / "BTCUSDT/2024/01/data.quantdev").unlink()
    MonthFolder(tmp_path, "BTCUSDT", 2024, 2).index.write_bytes(b"QIX9" + bytes(50))
    outcome = check(tmp_path).expect(1)
    assert "BTCUSDT 2024-01-05  damaged\n  damaged: its files cannot be opened\n" in outcome.stdout
    assert "BTCUSDT 2024-03-05  AGG2  30 rows" in outcome.stdout
    first, second = outcome.stderr.splitlines()
    assert first.endswith("01/data.quantdev: No such file or directory")
    assert "02/index.quantdev at byte 0: expected rows of a day" in second


def test_check_of_one_symbol_and_of_nothing(tmp_path: Path) -> None:
    for symbol in ("BTCUSDT", "ETHUSDT"):
        MonthFolder(tmp_path, symbol, 2024, 1).add_rows(truncated_rows(day_lines(0)), 5)
    outcome = check(tmp_path, "--symbol", "ETHUSDT").expect()
    assert "BTCUSDT" not in outcome.stdout
    assert outcome.stdout.endswith("1 day, 30 rows\n")
    assert "no such folder" in check(tmp_path / "none").expect(1).stderr

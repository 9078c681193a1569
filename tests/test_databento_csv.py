"""`candlebeam databento fetch --csv`: the text that stands beside the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from candlebeam.rules.months import date_text
from tests.databento_runs import (
    JANUARY,
    fetch,
    files,
    place,
    serving,
)
from tests.databento_server import (
    GET_RANGE,
    PRICE,
    Bar,
    Fault,
    Query,
    Server,
    bars,
    compressed,
    encode,
    ns,
    trades,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as found:
        yield found


QUERY = Query("XNAS.ITCH", "ohlcv-1s", "SPY", "raw_symbol", ns("2024-01-01"), ns("2024-02-01"))


def head() -> bytes:
    """The metadata of January."""
    plain: bytes = zstandard.ZstdDecompressor().decompressobj().decompress(QUERY.dbn())
    return plain[: len(plain) - sum(map(len, QUERY.records()))]


def decimal(price: int) -> str:
    """A price in units of 1e-9 as a decimal, without zeros behind."""
    whole, rest = divmod(price, PRICE)
    return f"{whole}.{rest:09}".rstrip("0").rstrip(".")


def test_bars_become_csv(server: Server) -> None:
    outcome = fetch("SPY", "2024-01", "2024-01", "--csv").expect()
    assert "1 file fetched" in outcome.stdout
    assert "1 CSV file written" in outcome.stdout
    expected = ["timestamp,open,high,low,close,volume"]
    for index, bar in enumerate(bars(15144, ns("2024-01-01"), ns("2024-02-01"))):
        time = ("00:00:00", "12:00:00", "23:59:59")[index % 3]
        prices = ",".join(map(decimal, bar[1:5]))
        expected.append(f"{date_text(bar.ts)} {time}+00:00,{prices},{bar.volume}")
    assert place(JANUARY + ".csv").read_text().splitlines() == expected


def test_bars_at_odd_times_are_no_bars(server: Server) -> None:
    odd = Bar(ns("2024-01-01") + 7, PRICE, PRICE, PRICE, PRICE, 1)
    server.always(GET_RANGE, Fault(body=compressed(head() + encode("ohlcv-1s", 15144, odd))))
    outcome = fetch("SPY", "2024-01", "2024-01", "--csv", "--no-count").expect(1)
    assert "expected a bar of 56 bytes at a whole second, found 56 bytes of type 32, 7 ns" in (
        outcome.stderr
    )
    assert list(files()) == [JANUARY + ".dbn.zst"]


def test_csv_is_made_of_what_is_there(server: Server) -> None:
    fetch("SPY", "2024-01", "2024-02").expect()
    outcome = fetch("SPY", "2024-01", "2024-02", "--csv").expect()
    assert outcome.stdout == "0 files fetched, 2 CSV files written, 2 already here\n"
    assert len(server.ranges()) == 2
    assert fetch("SPY", "2024-01", "2024-02", "--csv").stdout == (
        "0 files fetched, 2 already here\n"
    )


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_csv_that_is_not_whole_is_made_again(server: Server, damage: str) -> None:
    fetch("SPY", "2024-01", "2024-01", "--csv").expect()
    path = place(JANUARY + ".csv")
    before = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(before[:-10])
    assert "1 CSV file written" in fetch("SPY", "2024-01", "2024-01", "--csv").expect().stdout
    assert path.read_bytes() == before


def test_csv_follows_data_that_has_grown(server: Server) -> None:
    fetch("SPY", "2024-01-02", "2024-01-03", "--csv").expect()
    fetch("SPY", "2024-01-01", "2024-01-03", "--csv").expect()
    lines = place(JANUARY + ".csv").read_text().splitlines()
    assert lines[1].startswith("2024-01-01 00:00:00")
    assert len(lines) == 10


def test_csv_of_trades_has_all_fields(server: Server) -> None:
    fetch("SPY", "2024-01-01", "2024-01-02", "--csv", schema="trades").expect()
    lines = place(JANUARY + ".csv", "trades").read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    expected = trades(15144, ns("2024-01-01"), ns("2024-01-03"))
    assert [(float(row["price"]), int(row["size"])) for row in rows] == [
        (trade.open / PRICE, trade.volume) for trade in expected
    ]
    assert rows[0]["ts_event"] == "2024-01-01T00:00:00.000000000Z"
    assert rows[0]["ts_recv"] == "2024-01-01T00:00:00.999999999Z"
    assert {row["symbol"] for row in rows} == {"SPY"}
    assert {row["side"] for row in rows} == {"B"}


def test_csv_of_several_instruments_names_them(server: Server) -> None:
    fetch("ES.FUT", "2024-03-14", "2024-03-17", "--csv").expect()
    lines = place("ES.FUT/ES.FUT_2024_03.csv").read_text().splitlines()
    assert lines[0].startswith("ts_event,") and lines[0].endswith(",symbol")  # noqa: PT018
    names = [line.rsplit(",", 1)[1] for line in lines[1:]]
    assert (names.count("ESH4"), names.count("ESM4")) == (6, 12)


def test_bars_of_several_publishers_are_told(server: Server) -> None:
    body = b"".join(record * 2 for record in QUERY.records())
    server.will(GET_RANGE, Fault(body=compressed(head() + body)))
    outcome = fetch("SPY", "2024-01", "2024-01", "--csv").expect()
    assert "SPY_2024_01.csv: 93 bars not after the one before" in outcome.stderr
    assert len(place(JANUARY + ".csv").read_text().splitlines()) == 187

"""Looking at candles: `candlebeam show`, and `candlebeam.open_candles` from Python."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import candlebeam
from tests.archives import Archive
from tests.command_line import COMMAND, Workspace, contents, environment, run_here
from tests.test_commands import FOLDER, MARKET, T0, TEXT


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """One market with two candles and a gap of two, indexed."""
    found = Workspace(tmp_path)
    Archive({f"{FOLDER}/2024-03-02-00": TEXT}).write(found.archive)
    found.index().expect()
    return found


# --- show ----------------------------------------------------------------------------------------


def shown(work: Workspace, *options: object) -> list[list[str]]:
    """The rows of the table, cells apart; the time is two of them."""
    lines = run_here("show", work.out / f"{MARKET}.bin", *options).expect().stdout.splitlines()
    return [line.split() for line in lines[2:]]


def test_show_prints_candles(work: Workspace) -> None:
    work.backfill().expect()
    title, head, *rows = run_here("show", work.out / f"{MARKET}.bin").expect().stdout.splitlines()
    assert MARKET in title
    assert "10000" in title
    assert head.split()[:5] == ["time", "open", "high", "low", "close"]
    assert [" ".join(row.split()) for row in rows] == [
        "2024-03-02 00:00:00 100.2500 100.5000 99.5000 99.5000 598.50 100.50 2 1 0.00 270.00",
        "2024-03-02 00:01:00",
        "2024-03-02 00:02:00",
        "2024-03-02 00:03:00 101.0000 101.0000 101.0000 101.0000 0.00 50.50 0 1 0.00 0.00",
    ]
    assert shown(work) == [row.split() for row in rows]
    companion = work.out / f"{MARKET}.json"
    assert (
        run_here("show", companion).stdout == run_here("show", companion.with_suffix(".bin")).stdout
    )


@pytest.mark.parametrize(
    ("options", "minutes"),
    [
        (("--head", 1), [0]),
        (("--head", 0), []),
        (("--tail", 2), [2, 3]),
        (("--head", 1, "--tail", 1), [0, 3]),
        (("--head", 9, "--tail", 9), [0, 1, 2, 3]),
        (("--from", "2024-03-02T00:01"), [1, 2, 3]),
        (("--from", "2024-03-02T00:00:01"), [1, 2, 3]),
        (("--from", "2024-03-02T00:01Z", "--to", "2024-03-02T00:03:00"), [1, 2]),
        (("--from", "2024-03-02T01:02+01:00", "--head", 1), [2]),
        (("--from", T0 + 60_000, "--tail", 1), [3]),
        (("--to", "2024-03-02"), []),
        (("--from", "2025-01-01"), []),
        (("--from", "2024-03-02T00:03", "--to", "2024-03-02T00:01"), []),
    ],
)
def test_show_chooses_candles(
    work: Workspace, options: tuple[object, ...], minutes: list[int]
) -> None:
    work.backfill().expect()
    rows = [row for row in shown(work, *options) if row != ["..."]]
    assert [row[1] for row in rows] == [f"00:{minute:02}:00" for minute in minutes]


def test_show_refuses_what_is_no_candle_file(work: Workspace, tmp_path: Path) -> None:
    work.backfill().expect()
    records = work.out / f"{MARKET}.bin"
    assert run_here("show", records, "--from", "yesterday").code == 2
    assert run_here("show", records, "--to", "2024-13-01").code == 2
    for path in (tmp_path / "nothing.bin", tmp_path / "nothing.json"):
        outcome = run_here("show", path)
        assert outcome.code == 1
        assert str(tmp_path / "nothing") in outcome.output
    records.write_bytes(records.read_bytes()[:-1])
    outcome = run_here("show", records).expect(1)
    assert str(records) in outcome.output
    records.with_suffix(".json").write_bytes(b"{}")
    outcome = run_here("show", records).expect(1)
    assert str(records.with_suffix(".json")) in outcome.output


def test_show_into_a_pipe_that_closes(work: Workspace) -> None:
    rows = "".join(f"{T0 + 60_000 * n} 1 1 1\n" for n in range(50_000))
    Archive({f"{FOLDER}/2024-03-02-00": rows.encode()}).write(work.archive)
    work.backfill().expect()
    command = [*COMMAND, "show", str(work.out / f"{MARKET}.bin"), "--head", "50000"]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


# --- from Python ---------------------------------------------------------------------------------


def test_open_candles(work: Workspace) -> None:
    work.backfill().expect()
    candles = candlebeam.open_candles(work.out / f"{MARKET}.bin")
    assert len(candles) == 4
    assert candles.records.tobytes() == contents(work.out)[MARKET]
    assert candles.records.open.tolist() == [1_002_500, 0, 0, 1_010_000]
    assert not candles.records.flags.writeable
    assert candles.companion.market == ("RAM", "BINANCE", "btcusdt")
    assert str(candles.times()[3]) == "2024-03-02T00:03:00.000"
    written = json.loads((work.out / f"{MARKET}.json").read_text())
    assert written == json.loads(json.dumps(candles.companion.to_json()))

    frame = candles.to_pandas()
    assert frame.index[0].isoformat() == "2024-03-02T00:00:00+00:00"
    assert frame["close"].dropna().tolist() == [99.5, 101.0]
    assert frame["close"].isna().tolist() == [False, True, True, False]
    assert frame["buy_volume"].tolist() == [598.5, 0, 0, 0]
    assert frame["sell_liquidation"].tolist() == [270.0, 0, 0, 0]
    assert frame["buy_count"].tolist() == [2, 0, 0, 0]
    table = candles.to_arrow(slice(3, 4))
    assert table.num_rows == 1
    assert table.column("open").to_pylist() == [101.0]

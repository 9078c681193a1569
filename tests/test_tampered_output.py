"""Outputs that somebody has changed between two runs: made again, or refused, and said."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests import oracle
from tests.agreement import assert_files_agree
from tests.archives import Archive
from tests.command_line import Outcome, Workspace, contents
from tests.deliveries import sync
from tests.test_resume import FOLDER, MARKET, assert_as_fresh, rows


@pytest.fixture
def finished(tmp_path: Path) -> Workspace:
    """A market of two files, one of them still growing, already backfilled."""
    work = Workspace(tmp_path)
    sync(
        work.archive,
        {
            f"{FOLDER}/2024-03-02-00": rows((0, "100"), (60_000, "101")),
            f"{FOLDER}/2024-03-02-04": rows((4 * 3_600_000, "102"), (4 * 3_600_000 + 1, "103")),
        },
    )
    work.run()
    assert_as_fresh(work)
    return work


def grow(work: Workspace) -> None:
    path = work.archive / FOLDER / "2024-03-02-04"
    path.write_bytes(path.read_bytes() + rows((5 * 3_600_000, "104")))


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize("tampering", ["no bin", "short bin", "empty bin", "companion of nothing"])
def test_records_that_are_not_whole_are_made_again(
    finished: Workspace, tampering: str, grows: bool
) -> None:
    records, companion = finished.out / f"{MARKET}.bin", finished.out / f"{MARKET}.json"
    if tampering == "no bin":
        records.unlink()
    elif tampering == "short bin":
        records.write_bytes(records.read_bytes()[:-1])
    elif tampering == "empty bin":
        records.write_bytes(b"")
    else:
        companion.unlink()
    if grows:
        grow(finished)
    outcome = finished.run()
    row = outcome.markets[MARKET]
    assert row["rebuilt"] or tampering == "no bin"
    assert any("btcusdt" in note and "made again" in note for note in row["notes"]), row["notes"]
    assert "made again" in outcome.output
    assert_as_fresh(finished)


@pytest.mark.parametrize("grows", [False, True])
def test_tail_that_a_crash_left_is_cut(finished: Workspace, grows: bool) -> None:
    records = finished.out / f"{MARKET}.bin"
    records.write_bytes(records.read_bytes() + b"leftover" * 100)
    if grows:
        grow(finished)
    row = finished.run().markets[MARKET]
    assert not row["rebuilt"]
    assert_as_fresh(finished)


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\0", b"[]", b"null", b'{"exchange": "BINANCE"}', b'"x"', b"[" * 100_000],
)
def test_companion_that_is_none_is_made_again(
    finished: Workspace, content: bytes, grows: bool
) -> None:
    companion = finished.out / f"{MARKET}.json"
    companion.write_bytes(content)
    if grows:
        grow(finished)
    outcome = finished.run()
    row = outcome.markets[MARKET]
    assert row["rebuilt"]
    assert any(str(companion) in note for note in row["notes"]), row["notes"]
    assert_as_fresh(finished)


def foreign(companion: Path, kind: str) -> None:
    values = json.loads(companion.read_bytes())
    if kind == "another program":
        del values["candlebeam"]
    elif kind == "newer version":
        values["candlebeam"]["version"] = 999
    companion.write_text(json.dumps(values))


@pytest.mark.parametrize("kind", ["another program", "newer version"])
def test_companion_of_another_program_fails_its_market_alone(
    finished: Workspace, kind: str
) -> None:
    companion = finished.out / f"{MARKET}.json"
    foreign(companion, kind)
    before, tampered = contents(finished.out), companion.read_bytes()
    other = "RAM/btc/BINANCE/ethusdt/2024-03-02-00"
    Archive({other: rows((0, "5"))}).write(finished.archive)
    finished.index().expect()
    outcome = finished.backfill().expect(1)
    row = outcome.markets[MARKET]
    assert row["status"] == "failed"
    assert str(companion) in row["error"]
    assert "--force" in row["error"]
    assert "another" in outcome.output
    assert outcome.markets["RAM/BINANCE/ethusdt"]["status"] == "written"
    assert contents(finished.out).items() >= before.items()
    assert companion.read_bytes() == tampered

    row = finished.run("--force").markets[MARKET]
    assert row["rebuilt"]
    assert_as_fresh(finished)


def test_other_settings_fail_and_force_takes_them(finished: Workspace) -> None:
    outcome = finished.backfill("--no-corrections", "--timeframe", "5m").expect(1)
    assert "5m" in outcome.markets[MARKET]["error"]
    assert_as_fresh(finished)
    finished.run("--force", "--timeframe", "5m")
    meaning = oracle.Settings(timeframe_ms=300_000)
    assert_files_agree(finished.out, oracle.backfill(finished.archive, meaning))


def test_force_makes_again_what_is_there(finished: Workspace) -> None:
    outcome: Outcome = finished.run("--force")
    row = outcome.markets[MARKET]
    assert row["status"] == "written"
    assert row["rebuilt"]
    assert row["files"] == 2
    assert_as_fresh(finished)


def test_last_input_that_is_gone_loses_nothing(finished: Workspace) -> None:
    """The last input is not there any more: what it gave stays, and new files still fail safely."""
    before = contents(finished.out)
    (finished.archive / FOLDER / "2024-03-02-04").unlink()
    finished.backfill()
    assert contents(finished.out) == before
    Archive({f"{FOLDER}/2024-03-02-08": rows((8 * 3_600_000, "105"))}).write(finished.archive)
    finished.index().expect()
    outcome = finished.backfill().expect(1)
    assert outcome.markets[MARKET]["status"] == "failed"
    assert "2024-03-02-04" in outcome.markets[MARKET]["error"]
    assert contents(finished.out) == before


def test_resumed_report_counts_what_was_read(finished: Workspace) -> None:
    grow(finished)
    row = finished.run().markets[MARKET]
    assert Counter({k: row[k] for k in ("files", "late_trades", "late_files")}) == Counter(files=1)
    assert row["records"] == 301
    assert row["candles"] + row["gaps"] <= row["records"]

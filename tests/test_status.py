"""`status`: how far each market has come, and who writes there."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from candlebeam.errors import CandlebeamError
from candlebeam.formats.candles.companion import CandlePaths, Companion, Journal
from candlebeam.io.staging import Staging
from candlebeam.model import Market
from candlebeam.pipelines import status
from candlebeam.pipelines.lock import output_lock
from candlebeam.pipelines.status import OutputStatus, output_status
from candlebeam.pipelines.status_lines import status_lines
from candlebeam.pipelines.wording import ago, iso_time
from tests.beam_files import KeptFiles
from tests.candle_pairs import companion_of
from tests.command_line import environment, run_here
from tests.loopback import RestServer, free_port, json_answer, rest_server
from tests.permissions import unprivileged_folder
from tests.test_cluster_flink_master import JOB, job
from tests.test_cluster_job_record import RECORD
from tests.trade_batches import MIDNIGHT

MINUTE = 60_000
BTC = Market("RAM", "BINANCE", "btcusdt")
XBT = Market("PI", "KRAKEN", "XBT/USD.x%")


def put(
    out: Path, market: Market, records: int = 3, *, late_trades: int = 0, missing: int = 0
) -> CandlePaths:
    """A market with as many candles from midnight on; `missing` bytes of the file are not there."""
    companion = companion_of(records)
    assert companion.state is not None
    state = replace(companion.state, late_trades=late_trades)
    companion = replace(companion, market=market, state=state)
    paths = CandlePaths.of(str(out), market)
    Path(paths.records).parent.mkdir(parents=True, exist_ok=True)
    Path(paths.records).write_bytes(bytes(companion.size - missing))
    Path(paths.companion).write_bytes(companion.encode())
    return paths


def look(out: Path, *, lag_ms: int = 42_000, **options: str) -> OutputStatus:
    """The status so long after the end of three candles."""
    return output_status(str(out), now_ms=MIDNIGHT + 3 * MINUTE + lag_ms, **options)


def table(found: OutputStatus) -> list[str]:
    """The lines of the table."""
    lines = list(status_lines(found))
    return lines[lines.index("") + 1 :]


# --- markets -------------------------------------------------------------------------------------


def test_table_of_markets(tmp_path: Path) -> None:
    put(tmp_path, BTC, late_trades=1_234)
    put(tmp_path, XBT, records=2)
    found = look(tmp_path)
    assert found.exit_code == 0
    assert list(status_lines(found)) == [
        f"{tmp_path}: nobody is writing here",
        "",
        "market                last candle                  lag  candles  late trades",
        "PI/KRAKEN/XBT/USD.x%  2024-03-01T00:02:00Z  1 min 42 s        2            0",
        "RAM/BINANCE/btcusdt   2024-03-01T00:03:00Z        42 s        3        1,234",
    ]


def test_trades_that_came_too_late_are_counted(tmp_path: Path) -> None:
    put(tmp_path, XBT)
    paths = put(tmp_path, BTC)
    Path(paths.stem + ".late").write_bytes(b'{"ts":1}\n{"ts":2}\n{"ts"')
    found = look(tmp_path)
    assert table(found) == [
        "market                last candle            lag  candles  late trades  too late",
        "PI/KRAKEN/XBT/USD.x%  2024-03-01T00:03:00Z  42 s        3            0",
        "RAM/BINANCE/btcusdt   2024-03-01T00:03:00Z  42 s        3            0         2",
    ]
    assert [(m.too_late, m.too_late_bytes) for m in found.markets] == [(None, None), (2, 23)]


def test_long_file_of_late_trades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_PIECE", 3)
    paths = put(tmp_path, BTC)
    for lines in range(5):
        Path(paths.stem + ".late").write_bytes(b"ab\n" * lines)
        (market,) = look(tmp_path).markets
        assert (market.too_late, market.too_late_bytes) == (lines, 3 * lines)


@pytest.mark.parametrize(
    ("options", "markets"),
    [
        (("--collector", "ram"), [BTC]),
        (("--exchange", "kraken"), [XBT]),
        (("--symbol", "btcusdt"), [BTC]),
        (("--symbol", XBT.symbol, "--collector", "PI"), [XBT]),
        ((), [XBT, BTC]),
    ],
)
def test_markets_can_be_chosen(
    tmp_path: Path, options: tuple[str, ...], markets: list[Market]
) -> None:
    put(tmp_path, BTC)
    put(tmp_path, XBT)
    done = run_here("status", tmp_path, "--json", *options).expect()
    rows = json.loads(done.stdout)["markets"]
    assert [(r["collector"], r["exchange"], r["symbol"]) for r in rows] == markets


def test_json_document(tmp_path: Path) -> None:
    paths = put(tmp_path, BTC, late_trades=5)
    Path(paths.stem + ".late").write_bytes(b"{}\n")
    document = json.loads(run_here("status", tmp_path, "--json").expect().stdout)
    now, lag = document.pop("now"), document["markets"][0].pop("lagMs")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", now)
    assert lag > 0
    nobody = dict.fromkeys(("what", "pid", "host", "secondsSinceRenewed", "problem"))
    assert document == {
        "out": str(tmp_path),
        "lock": {"held": False, **nobody},
        "job": None,
        "markets": [
            {
                "collector": "RAM",
                "exchange": "BINANCE",
                "symbol": "btcusdt",
                "timeframe": "1m",
                "end": "2024-03-01T00:03:00Z",
                "endTs": MIDNIGHT + 3 * MINUTE,
                "records": 3,
                "quietRecords": 0,
                "lateTrades": 5,
                "tooLate": 1,
                "tooLateBytes": 3,
                "problem": None,
            }
        ],
    }


def test_candles_of_another_program_have_no_late_trades(tmp_path: Path) -> None:
    paths = put(tmp_path, BTC)
    values = json.loads(Path(paths.companion).read_bytes())
    del values["candlebeam"]
    del values["collector"]
    Path(paths.companion).write_text(json.dumps(values))
    (market,) = look(tmp_path).markets
    assert (market.records, market.late_trades, market.problem) == (3, None, None)


def test_candle_that_lasts_has_no_lag(tmp_path: Path) -> None:
    put(tmp_path, BTC)
    found = look(tmp_path, lag_ms=-1_000)
    assert found.markets[0].lag_ms == -1_000
    assert table(found)[1].split() == [str(BTC), "2024-03-01T00:03:00Z", "0", "s", "3", "0"]


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0, "0 s"),
        (59_999, "59 s"),
        (60_000, "1 min 0 s"),
        (3_599_999, "59 min 59 s"),
        (11_100_000, "3 h 5 min"),
        (86_399_999, "23 h 59 min"),
        (86_400_000, "1 d 0 h"),
        (10 * 86_400_000, "10 d 0 h"),
    ],
)
def test_lag_in_words(ms: int, words: str) -> None:
    assert ago(ms) == words


def test_times() -> None:
    assert iso_time(MIDNIGHT + 1) == "2024-03-01T00:00:00.001Z"
    assert iso_time(1 << 61) == f"{1 << 61} ms"


def test_commit_that_is_decided_counts(tmp_path: Path) -> None:
    """Readers go by the journal: so does `status`, and leaves it alone."""
    paths = put(tmp_path, BTC, records=2)
    new = Companion.decode(Path(paths.companion).read_bytes(), paths.companion)
    new = replace(new, end_ts=new.end_ts + MINUTE, records=3)
    Path(paths.journal).write_bytes(Journal(new, bytes(new.size // 3), 0).encode())
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    (market,) = look(tmp_path).markets
    assert (market.records, market.problem) == (3, None)
    after = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*") if path.is_file())
    assert after == before


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        ("garbage", r".*/btcusdt\.json: expected JSON of a candle file, found .*"),
        ("empty", r".*/btcusdt\.json: expected JSON of a candle file, .*"),
        ("other", r".*/btcusdt\.json: expected the companion of a candle file, found no .*"),
        ("journal", r".*/\.btcusdt\.journal: expected a commit journal, .*"),
        ("short", r".*/btcusdt\.bin has 1?\d\d of 1\d\d bytes"),
        ("no candles", r".*/btcusdt\.bin is missing"),
        ("no companion", r".*/btcusdt\.json is missing"),
        ("moved", r".*/btcusdt\.json belongs to RAM/BINANCE/ethusdt"),
    ],
)
def test_damaged_market_is_shown_as_such(tmp_path: Path, harm: str, problem: str) -> None:
    put(tmp_path, XBT)
    paths = put(tmp_path, BTC, missing=1 if harm == "short" else 0)
    companion = Path(paths.companion)
    if harm == "garbage":
        companion.write_bytes(b"\xff{")
    elif harm == "empty":
        companion.write_bytes(b"")
    elif harm == "other":
        companion.write_bytes(b"{}")
    elif harm == "journal":
        Path(paths.journal).write_bytes(b"{}")
    elif harm == "no candles":
        Path(paths.records).unlink()
    elif harm == "no companion":
        companion.unlink()
    elif harm == "moved":
        other = CandlePaths.of(str(tmp_path), BTC._replace(symbol="ethusdt"))
        put(tmp_path, BTC._replace(symbol="ethusdt"))
        Path(other.companion).replace(companion)
        Path(other.records).unlink()
    done = run_here("status", tmp_path).expect(1)
    *_, good, bad = done.stdout.splitlines()
    assert re.match(r"PI/KRAKEN/XBT/USD.x%  2024-03-01T00:03:00Z  \d+ d \d+ h ", good)
    assert re.fullmatch(f"RAM/BINANCE/btcusdt   damaged: {problem}", bad)
    assert done.stderr == ""
    document = json.loads(run_here("status", tmp_path, "--json").expect(1).stdout)
    assert re.fullmatch(problem, document["markets"][1]["problem"])


def test_first_commit_that_is_under_way_is_not_damage(tmp_path: Path) -> None:
    """Its candles are in place before their companion is."""
    paths = put(tmp_path, BTC)
    Path(paths.companion).unlink()
    with output_lock(str(tmp_path)):
        found = look(tmp_path)
    assert found.exit_code == 0
    assert table(found)[1].split() == [str(BTC)]


def test_market_that_cannot_be_read(tmp_path: Path) -> None:
    with unprivileged_folder() as folder:
        paths = put(folder, BTC)
        Path(paths.companion).chmod(0)
        (market,) = look(folder).markets
        assert market.problem == f"cannot read {paths.companion}: Permission denied"


def test_no_output_is_a_clear_error(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    outcome = run_here("status", gone).expect(1)
    assert outcome.stderr == f"candlebeam: {gone}: no such folder, so no candles\n"
    outcome = run_here("status", tmp_path).expect(1)
    assert outcome.stderr == f"candlebeam: {tmp_path}: no candles in it\n"
    put(tmp_path, BTC)
    outcome = run_here("status", tmp_path, "--symbol", "x", "--exchange", "BINANCE").expect(1)
    expected = f"candlebeam: {tmp_path}: no candles with exchange BINANCE, symbol x\n"
    assert outcome.stderr == expected


def test_other_files_are_no_markets(tmp_path: Path) -> None:
    put(tmp_path, BTC)
    others = (
        "report.json",
        "RAM/x.json",
        "RAM/BINANCE/deep/x.json",
        ".candlebeam-staging/a/b.json",
        "RAM/BINANCE/.btcusdt.bin.new",
        "RAM/BINANCE/.btcusdt.json.new",
        "RAM/BINANCE/x.txt",
        "RAM/BINANCE/x.late",
        "RAM/BINANCE/.json",
    )
    for name in others:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert [market.market for market in look(tmp_path).markets] == [BTC]


# --- who writes ----------------------------------------------------------------------------------


def test_holder_of_the_lock_is_shown(tmp_path: Path) -> None:
    put(tmp_path, BTC)
    with output_lock(str(tmp_path), "stream"):
        found = look(tmp_path)
        host = socket.gethostname()
        first = next(status_lines(found))
        assert first == f"{tmp_path}: stream is writing here (process {os.getpid()} on {host})"
        assert found.to_json()["lock"] == {
            "held": True,
            "what": "stream",
            "pid": os.getpid(),
            "host": host,
            "secondsSinceRenewed": None,
            "problem": None,
        }
    assert next(status_lines(look(tmp_path))) == f"{tmp_path}: nobody is writing here"


def test_output_in_which_somebody_has_just_begun(tmp_path: Path) -> None:
    with output_lock(str(tmp_path), "follow"):
        (tmp_path / ".candlebeam.holder").unlink()
        lines = run_here("status", tmp_path).expect().stdout.splitlines()
    assert lines == [f"{tmp_path}: another run is writing here"]


@pytest.fixture
def server() -> Iterator[RestServer]:
    with rest_server() as found:
        yield found


def note(out: Path, address: str) -> None:
    staging = out / ".candlebeam-staging"
    staging.mkdir()
    Staging(str(staging)).write_job(replace(RECORD, master=address, job_id=JOB).encode())


@pytest.mark.parametrize("state", ["RUNNING", "FAILED"])
def test_job_of_a_cluster_is_shown(tmp_path: Path, server: RestServer, state: str) -> None:
    put(tmp_path, BTC)
    note(tmp_path, server.address)
    server.answers["GET /jobs/overview"] = json_answer({"jobs": [job("backfill", 1, state)]})
    lines = run_here("status", tmp_path).expect().stdout.splitlines()
    submitted = "submitted 2024-03-01T00:00:00+00:00 on driver-1"
    assert lines[0] == f"{tmp_path}: nobody is writing here"
    assert lines[1] == f"job {JOB} at {server.address}, {submitted}: {state.lower()}"
    document = json.loads(run_here("status", tmp_path, "--json").expect().stdout)
    assert document["job"]["state"] == state
    assert document["job"]["id"] == JOB


def test_job_that_its_master_does_not_know(tmp_path: Path, server: RestServer) -> None:
    note(tmp_path, server.address)
    server.answers["GET /jobs/overview"] = json_answer({"jobs": []})
    found = look(tmp_path)
    assert list(status_lines(found))[1].endswith(": unknown to its master")


def test_job_whose_master_is_silent_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_ASK_SECONDS", 0.2)
    put(tmp_path, BTC)
    note(tmp_path, f"http://127.0.0.1:{free_port()}")
    found = look(tmp_path)
    assert found.job is not None
    assert found.job.state is None
    assert re.search(
        ": cannot be asked \\(no Flink master answers at ", list(status_lines(found))[1]
    )
    assert found.exit_code == 0


def test_staging_folder_elsewhere(tmp_path: Path) -> None:
    out, staging = tmp_path / "out", tmp_path / "staging"
    put(out, BTC)
    from candlebeam.pipelines.backfill import staging_of

    folder = staging_of(str(out), str(staging))
    Path(folder.path).mkdir(parents=True)
    folder.write_job(replace(RECORD, master=f"127.0.0.1:{free_port()}").encode())
    assert look(out).job is None
    assert look(out, staging=str(staging)).job is not None


@pytest.fixture
def remote() -> Iterator[str]:
    yield "kept://bucket/out"
    KeptFiles.held.clear()


def test_output_in_an_object_store(tmp_path: Path, remote: str) -> None:
    for market in (BTC, XBT):
        paths = put(tmp_path, market)
        Path(paths.stem + ".late").write_bytes(b"{}\n{}\n")
    for path in tmp_path.rglob("*.*"):
        name = path.relative_to(tmp_path).as_posix()
        KeptFiles.held[f"{remote}/{name}"] = (path.read_bytes(), 1.0)
    found = output_status(remote, now_ms=MIDNIGHT + 4 * MINUTE)
    assert found.holder is None
    assert [m.market for m in found.markets] == [XBT, BTC]
    assert {(m.records, m.lag_ms, m.too_late, m.problem) for m in found.markets} == {
        (3, MINUTE, 2, None)
    }
    with output_lock(remote, "stream"):
        (held, *_) = status_lines(output_status(remote))
    process = f"process {os.getpid()} on {socket.gethostname()}"
    assert re.fullmatch(
        re.escape(f"{remote}: stream is writing here ({process}, ") + r"\d+ s ago\)", held
    )
    del KeptFiles.held[f"{remote}/{BTC.path}.bin"]
    assert output_status(remote).exit_code == 1
    with pytest.raises(CandlebeamError, match="no candles in it"):
        output_status("kept://bucket/other")


# --- as a whole ----------------------------------------------------------------------------------


def test_it_changes_nothing_and_loads_nothing_heavy(tmp_path: Path) -> None:
    put(tmp_path, BTC)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    code = (
        "import sys, contextlib\n"
        "from candlebeam.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['status', sys.argv[1]])\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert not loaded & {"apache_beam", "numba", "pyarrow", "pandas", "databento", "grpc"}
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_filters_that_name_nothing_are_errors_even_while_somebody_writes(tmp_path: Path) -> None:
    with output_lock(str(tmp_path)), pytest.raises(CandlebeamError, match="no candles with symbol"):
        look(tmp_path, symbol="x")

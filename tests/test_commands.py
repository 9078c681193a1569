"""The commands as a user meets them: what they print, what they refuse, how they end."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests import oracle
from tests.agreement import assert_files_agree
from tests.archives import Archive, make_archive
from tests.command_line import (
    COMMAND,
    PATIENCE,
    PROJECT,
    Workspace,
    companions,
    contents,
    environment,
    run_here,
    run_process,
)
from tests.faults import KillHost
from tests.test_kill import STEADY, THREADS

T0 = 1_709_337_600_000  # 2024-03-02T00:00Z
MARKET = "RAM/BINANCE/btcusdt"
FOLDER = "RAM/btc/BINANCE/btcusdt"
TEXT = (
    f"{T0} 100.25 2 1\n{T0 + 1} 100.5 1 0\n{T0 + 59_999} 99.5 4 1\n"
    f"{T0 + 1_000} 90 3 0 1\n"
    f"{T0 + 180_000} 101 0.5 0\n"
).encode()


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """One market with two candles and a gap of two, indexed."""
    found = Workspace(tmp_path)
    Archive({f"{FOLDER}/2024-03-02-00": TEXT}).write(found.archive)
    found.index().expect()
    return found


# --- help ----------------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    outcome = run_process("--help").expect()
    for command in ("index", "backfill", "show", "clear"):
        assert command in outcome.stdout
        assert "Usage: " in run_here(command, "--help").expect().stdout
    assert re.search(r"\d+\.\d+", run_here("--version").expect().stdout)


def test_help_of_backfill_names_every_option() -> None:
    text = run_here("backfill", "--help").expect().stdout
    for option in (
        "--db", "--out", "--collector", "--exchange", "--symbol", "--timeframe", "--force",
        "--no-corrections", "--correction", "--liquidations", "--price-scale", "--late",
        "--skip-missing", "--rejects", "--staging", "--report", "--runner-config",
    ):  # fmt: skip
        assert option in text


@pytest.mark.parametrize("command", [["--help"], ["index"], ["show"], ["clear"], ["quiet"]])
def test_commands_that_need_no_beam_do_not_import_it(work: Workspace, command: list[str]) -> None:
    """They would be slow: Beam takes longer to import than they run."""
    work.backfill().expect()
    arguments: dict[str, list[object]] = {
        "--help": ["--help"],
        "index": ["index", work.archive, "--db", work.db],
        "show": ["show", work.out / f"{MARKET}.bin"],
        "clear": [
            *("clear", "--out", work.out, "--collector", "RAM"),
            *("--exchange", "BINANCE", "--symbol", "btcusdt"),
        ],
        "quiet": list(work.backfill_arguments()),
    }
    program = (
        "import sys\n"
        "from candlebeam.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    loaded = {'apache_beam', 'numba', 'pandas'} & set(sys.modules)\n"
        "    sys.exit(f'imported {loaded}' if loaded else end.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments[command[0]])],
        env=environment(CANDLEBEAM_IN_PROCESS="1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# --- index ---------------------------------------------------------------------------------------


def test_index_adds_only_what_is_new(work: Workspace) -> None:
    assert work.index().stdout.startswith("0 files added, 1 already known")
    Archive({f"{FOLDER}/2024-03-02-04.gz": b"", f"{FOLDER}/2024-03-02": b""}).write(work.archive)
    assert work.index().stdout.startswith("2 files added, 1 already known")
    assert work.index().stdout.startswith("0 files added, 3 already known")


def test_index_takes_several_roots(work: Workspace, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Archive({"pi/alts/kraken/XBT/2024-03-02": TEXT}).write(other)
    assert run_here("index", other, "--db", work.db).expect().stdout.startswith("1 file added")
    work.backfill().expect()
    assert sorted(contents(work.out)) == ["PI/KRAKEN/XBT", MARKET]
    assert len(set(contents(work.out).values())) == 1


def test_index_walks_only_what_is_included(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    files = [
        f"{collector}/{bucket}/{exchange}/x/2024-03-02"
        for collector in ("RAM", "PI")
        for bucket in ("a", "b")
        for exchange in ("E", "F")
    ]
    Archive(dict.fromkeys(files, TEXT)).write(work.archive)
    assert work.index("--include", "PI/a/E/x").stdout.startswith("1 file added")
    assert work.index("--include", "PI/a", "--include", "RAM/b/F").stdout.startswith("2 files")
    assert work.index("--include", "PI").stdout.startswith("2 files added, 2 already")
    assert work.index().stdout.startswith("3 files added, 5 already")
    for wrong in ("nothing", "../..", "PI/a/E/x/2024-03-02", "/"):
        outcome = work.index("--include", wrong)
        assert outcome.code == 2
        assert wrong in outcome.output


def test_index_names_what_it_skips(work: Workspace) -> None:
    for number in range(20):
        (work.archive / f"stray{number:02}.txt").write_bytes(b"")
    output = work.index().expect().output
    assert "20 skipped" in output
    assert "stray00.txt" in output
    assert "stray19.txt" not in output


# --- backfill ------------------------------------------------------------------------------------


def test_summary_and_report_of_a_backfill(work: Workspace) -> None:
    Archive({f"{FOLDER}/2024-03-02-04.gz": b"bad\n"}).write(work.archive)
    work.index().expect()
    outcome = work.backfill().expect()
    assert "1 written" in outcome.stdout
    assert "5 trades" in outcome.stdout
    assert "2 candles" in outcome.stdout
    assert "2 gaps" in outcome.stdout
    assert "fields 1" in outcome.stdout
    assert outcome.report["seconds"] >= 0
    expected: dict[str, object] = {
        "market": MARKET,
        "status": "written",
        "error": None,
        "notes": [],
        "files": 2,
        "trades": 5,
        "rejected": {"fields": 1},
        "damaged": [],
        "missing": [],
        "late_trades": 0,
        "late_files": 0,
        "candles": 2,
        "gaps": 2,
        "records": 4,
        "rebuilt": False,
        "chunks_reused": 0,
    }
    assert expected.items() <= outcome.markets[MARKET].items()
    assert outcome.totals["bytes"] == len(TEXT) + 4


def test_lines_of_progress_in_a_log(work: Workspace) -> None:
    stderr = work.backfill_process().expect().stderr
    lines = [line for line in stderr.splitlines() if "compiling" not in line]
    assert lines
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ .*", line), stderr
    assert "1 shards of 1 markets" in stderr or "1 shard of 1 market" in stderr


def test_progress_bar_on_a_terminal(work: Workspace) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *map(str, work.backfill_arguments())],
        env=environment(TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait(PATIENCE) == 0
    os.close(ours)
    assert b"\x1b[" in shown
    assert b"Traceback" not in shown


def test_symbols_that_a_path_cannot_hold(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    names = ["a%2Fb", "..", "a\\b", "tBTC:USD", "line\nfeed", ".hidden", "-x", "ü", "a b", "CON"]
    names.remove("..")
    Archive({f"RAM/btc/E/{name}/2024-03-02": TEXT for name in names}).write(work.archive)
    work.run()
    assert_files_agree(work.out, oracle.backfill(work.archive))
    found = {companion["symbol"] for companion in companions(work.out).values()}
    assert found == set(names)
    for path in work.out.rglob("*.bin"):
        assert len(path.relative_to(work.out).parts) == 3


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--timeframe", "7m"], "timeframe"),
        (["--timeframe", "1w"], "timeframe"),
        (["--timeframe", "500ms"], "timeframe"),
        (["--timeframe", "2d"], "timeframe"),
        (["--price-scale", "12345"], "12345"),
        (["--price-scale", "0"], "0"),
        (["--price-scale", "much"], "much"),
        (["--liquidations", "both"], "both"),
        (["--late", "never"], "never"),
        (["--correction", "wicks"], "wicks"),
        (["--correction", oracle.OKEX_SIZE, "--no-corrections"], "--no-corrections"),
        (["--shard_bytes", "0"], "shard_bytes"),
        (["--shard_bytes", "many"], "many"),
        (["--no_such_option", "1"], "no_such_option"),
        (["--colector", "RAM"], "colector"),
        (["stray"], "stray"),
        (["--direct_num_workers", "many"], "direct_num_workers"),
        (["--runner", "NoSuchRunner"], "NoSuchRunner"),
        (["--runner-config", "/nowhere/config.yaml"], "/nowhere/config.yaml"),
        (["--report", "/nowhere/report.json"], "/nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_of_backfill(work: Workspace, options: list[str], named: str) -> None:
    outcome = run_here("backfill", "--db", work.db, "--out", work.out, *options)
    assert outcome.code == 2, outcome.output
    assert named in outcome.output
    assert "Traceback" not in outcome.output
    assert contents(work.out) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("--nonsense",),
        ("index",),
        ("index", "."),
        ("index", ".", "--db", "x", "--nonsense"),
        ("backfill",),
        ("backfill", "--db", "x"),
        ("show",),
        ("show", "x.txt"),
        ("show", "x.bin", "--head", "-1"),
        ("show", "x.bin", "--head", "few"),
        ("clear",),
        ("clear", "--out", "x", "--collector", "RAM"),
    ],
    ids=" ".join,
)
def test_wrong_usage(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run_here(*arguments)
    assert outcome.code == 2, outcome.output
    assert "Traceback" not in outcome.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        (("--collector", "NONE"), "NONE"),
        (("--exchange", "BITMEX"), "BITMEX"),
        (("--symbol", "BTCUSDT"), "BTCUSDT"),
    ],
)
def test_filters_that_find_nothing(work: Workspace, filters: tuple[str, ...], named: str) -> None:
    outcome = work.backfill(*filters).expect(1)
    assert named in outcome.output


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [
        ("runner: FnApiRunner\ndirect_num_workers: 1\ndirect_running_mode: in_memory\n", 0, ""),
        ("save_main_session: false\nexperiments: [a, b]\n", 0, ""),
        ("", 2, "config.yaml"),
        ("- runner\n", 2, "config.yaml"),
        ("runner: {a: b}\n", 2, "runner"),
        ("no_such_option: 1\n", 2, "no_such_option"),
        ("runner: [\n", 2, "config.yaml"),
    ],
)
def test_runner_config(
    work: Workspace, tmp_path: Path, content: str, code: int, named: str
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(content)
    outcome = work.backfill("--runner-config", config).expect(code)
    assert named in outcome.output
    assert list(contents(work.out)) == ([] if code else [MARKET])


def test_runner_config_of_the_project(work: Workspace) -> None:
    work.backfill("--runner-config", PROJECT / "runner_configs" / "direct.yaml").expect()
    assert_files_agree(work.out, oracle.backfill(work.archive))


def test_staging_elsewhere_is_left_empty(work: Workspace, tmp_path: Path) -> None:
    staging = tmp_path / "staging"
    work.backfill("--staging", staging).expect()
    assert [path for path in staging.rglob("*") if path.is_file()] == []
    assert_files_agree(work.out, oracle.backfill(work.archive))


@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGINT, STEADY), (signal.SIGINT, THREADS), (signal.SIGTERM, THREADS)],
    ids=["Ctrl-C, one worker", "Ctrl-C, threads", "SIGTERM, threads"],
)
def test_interrupted_backfill_ends_cleanly_and_goes_on(
    tmp_path: Path, number: signal.Signals, options: tuple[object, ...]
) -> None:
    work = Workspace(tmp_path)
    make_archive(Random(1), listings=6, files=3, rows=20).write(work.archive)
    work.index().expect()
    arguments = work.backfill_arguments(*options)
    with KillHost() as host:
        for at in (5, 30, 60, 90):
            shutil.rmtree(work.out, ignore_errors=True)
            assert host.run(arguments, at, number) == 130
    work.backfill(*options).expect()
    assert_files_agree(work.out, oracle.backfill(work.archive))


def test_interrupted_process_says_so(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    make_archive(Random(3), listings=40, files=4, rows=20).write(work.archive)
    work.index().expect()
    with subprocess.Popen(
        [*COMMAND, *map(str, work.backfill_arguments("--shard_bytes", 1))],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        while " shards of " not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1]
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in errors
    if process.returncode:  # it may have been quicker
        assert process.returncode == 130
        assert "interrupted" in errors
        assert output == ""
    work.backfill().expect()
    assert_files_agree(work.out, oracle.backfill(work.archive))


# --- clear ---------------------------------------------------------------------------------------


def test_clear_removes_one_market(work: Workspace) -> None:
    Archive({"RAM/btc/BINANCE/ethusdt/2024-03-02-00": TEXT}).write(work.archive)
    work.run()
    market = ("--collector", "ram", "--exchange", "binance", "--symbol", "btcusdt")
    output = run_here("clear", "--out", work.out, *market).expect().output
    assert str(work.out / f"{MARKET}.bin") in output
    assert list(contents(work.out)) == list(companions(work.out)) == ["RAM/BINANCE/ethusdt"]
    assert run_here("clear", "--out", work.out, *market).code == 1
    row = work.run().markets[MARKET]
    assert row["status"] == "written"
    assert not row["rebuilt"]
    assert_files_agree(work.out, oracle.backfill(work.archive))


@pytest.mark.parametrize("symbol", ["", "..", "../BINANCE/btcusdt", "BTCUSDT", "/etc/passwd"])
def test_clear_of_what_is_not_there(work: Workspace, symbol: str) -> None:
    work.backfill().expect()
    before = contents(work.out)
    market = ("--collector", "RAM", "--exchange", "BINANCE", "--symbol", symbol)
    outcome = run_here("clear", "--out", work.out, *market)
    assert outcome.code in (1, 2)
    assert contents(work.out) == before
    assert list(companions(work.out)) == [MARKET]

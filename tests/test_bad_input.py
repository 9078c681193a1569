"""Bad input: what can be read is kept, what cannot is named, and everything else goes on."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests import archives, oracle
from tests.agreement import assert_files_agree, assert_report_agrees
from tests.command_line import Outcome, Workspace, contents, run_here
from tests.permissions import unprivileged_folder

FOLDER = "RAM/btc/BINANCE/btcusdt"
MARKET = "RAM/BINANCE/btcusdt"
BYSTANDER = "RAM/KRAKEN/XBT-USDT"
T0 = 1_709_337_600_000
GOOD = b"".join(b"%d 100.%d 1 1\n" % (T0 + 1_000 * n, n) for n in range(200))


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """An archive with one market that is well."""
    found = Workspace(tmp_path)
    put(found, "2024-03-02-00", GOOD, "RAM/btc/KRAKEN/XBT-USDT")
    return found


def put(work: Workspace, name: str, content: bytes, folder: str = FOLDER) -> Path:
    path = work.archive / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def run(work: Workspace, *options: object) -> Outcome:
    work.index().expect()
    outcome = work.backfill(*options)
    assert outcome.markets[BYSTANDER]["status"] in ("written", "up-to-date")
    assert "Traceback" not in outcome.output
    return outcome


def assert_as_oracle(work: Workspace, outcome: Outcome) -> None:
    answers = oracle.backfill(work.archive)
    assert_files_agree(work.out, answers)
    assert_report_agrees(outcome, answers)
    assert outcome.code == 0


# --- damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", archives.DAMAGES)
def test_damaged_gzip_gives_what_is_before_the_damage(work: Workspace, kind: str) -> None:
    rng = Random(f"damage {kind}")
    packed = gzip.compress(GOOD, 6, mtime=0)
    found = (archives.damage(rng, packed, kind) for _ in range(30))
    sane = [content for content in found if archives.is_sane(content, T0)][:12]
    for number, content in enumerate(sane):
        put(work, "2024-03-02-00.gz", content, f"{FOLDER}{number}")
    outcome = run(work)
    assert_as_oracle(work, outcome)
    damaged = [file for row in outcome.report["markets"] for file in row["damaged"]]
    assert len(damaged) >= 10
    assert outcome.totals["damaged"] == len(damaged)
    for file in damaged:
        assert file["path"].endswith("/2024-03-02-00.gz")
        assert "\n" not in file["damage"]
        assert file["path"] in outcome.output or "--report" in outcome.output


def test_truncated_gzip_is_named_with_reason_and_place(work: Workspace) -> None:
    packed = gzip.compress(GOOD)
    path = put(work, "2024-03-02-00.gz", packed[:-400])
    outcome = run(work)
    row = outcome.markets[MARKET]
    assert [file["path"] for file in row["damaged"]] == [str(path)]
    assert "cut off" in row["damaged"][0]["damage"]
    assert str(len(packed) - 400) in row["damaged"][0]["damage"]
    assert 0 < row["trades"] < 200
    assert str(path) in outcome.output
    assert_as_oracle(work, outcome)


@pytest.mark.parametrize("name", ["2024-03-02-00", "2024-03-02-00.gz"])
def test_empty_file(work: Workspace, name: str) -> None:
    put(work, name, b"")
    put(work, "2024-03-02-04", GOOD)
    outcome = run(work)
    assert len(outcome.markets[MARKET]["damaged"]) == name.endswith(".gz")
    assert_as_oracle(work, outcome)


def test_market_of_empty_files_alone(work: Workspace) -> None:
    put(work, "2024-03-02-00", b"")
    put(work, "2024-03-02-04", b"\n\n \n")
    outcome = run(work)
    assert outcome.markets[MARKET]["status"] == "empty"
    assert_as_oracle(work, outcome)


# --- odd text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + GOOD,
        b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b" ", b"\t"),
        GOOD.replace(b"\n", b"\n\n"),
        GOOD.removesuffix(b"\n"),
        GOOD.removesuffix(b"\n") + b"\r",
    ],
    ids=["CRLF", "BOM", "BOM and CRLF", "tabs", "empty lines", "no last LF", "last CR"],
)
def test_odd_text_is_read_as_if_it_were_plain(work: Workspace, text: bytes) -> None:
    put(work, "2024-03-02-00", text)
    outcome = run(work)
    assert outcome.markets[MARKET]["rejected"] == {}
    assert contents(work.out)[MARKET] == contents(work.out)[BYSTANDER]
    assert_as_oracle(work, outcome)


@pytest.mark.parametrize("reason", sorted(archives.BAD_ROWS))
def test_bad_rows_are_counted_by_reason(work: Workspace, reason: str) -> None:
    bad = [row.replace(b"{ts}", b"%d" % T0) for row in archives.BAD_ROWS[reason]]
    put(work, "2024-03-02-00", b"\n".join([GOOD, *bad]))
    outcome = run(work)
    assert outcome.markets[MARKET]["rejected"] == {reason: len(bad)}
    assert outcome.totals["rejected"] == {reason: len(bad)}
    assert contents(work.out)[MARKET] == contents(work.out)[BYSTANDER]
    assert reason in outcome.output
    assert_as_oracle(work, outcome)


@pytest.mark.parametrize(
    "noise",
    [
        b"\0" * 5_000,
        b"\0" * 5_000 + b"\n",
        b"%d 101 1 1%d 101 1 1\n" % (T0, T0),
        b"%d 101 1 %d 101 1 1\n" % (T0, T0),
        b"%d 101 1 1\0\n" % T0,
        b"%d 1\0 1 1\n" % T0,
        b"\xff\xfe" * 100 + b"\n",
        b"%d 101 1 1\r%d 101 1 1\r\n" % (T0, T0),
        bytes(range(256)) * 9 + b"\n",
    ],
)
def test_noise_between_rows(work: Workspace, noise: bytes) -> None:
    put(work, "2024-03-02-00", GOOD + noise + b"%d 100 1 1\n" % (T0 + 500_000))
    put(work, "2024-03-02-04.gz", gzip.compress(noise + b"\n" + GOOD))
    outcome = run(work)
    assert sum(outcome.markets[MARKET]["rejected"].values()) >= 2
    assert_as_oracle(work, outcome)


@pytest.mark.parametrize("packed", [False, True])
def test_line_of_100_megabytes(work: Workspace, packed: bool) -> None:
    text = GOOD + b"1" * 100_000_000 + b"\n%d 7 1 1\n" % (T0 + 500_000)
    put(work, "2024-03-02-00", gzip.compress(text, 1) if packed else text)
    outcome = run(work)
    row = outcome.markets[MARKET]
    assert row["rejected"] == {"length": 1}
    assert row["trades"] == 201


def test_market_whose_rows_are_all_bad(work: Workspace) -> None:
    put(work, "2024-03-02-00", b"not a trade\n" * 1_000)
    outcome = run(work)
    row = outcome.markets[MARKET]
    assert row["status"] == "empty"
    assert row["trades"] == 0
    assert row["rejected"] == {"fields": 1_000}
    assert "1 without trades" in outcome.output
    assert_as_oracle(work, outcome)


def test_rejected_rows_are_kept_with_file_and_line(work: Workspace, tmp_path: Path) -> None:
    long = b"x" * 2_000_000
    first = put(work, "2024-03-02-00", b"\n\xef\xbb\xbfbad\r\n" + GOOD + b"\nworse \0\xff\n" + long)
    second = put(work, "2024-03-02-04.gz", gzip.compress(b"1 2\n" + GOOD + b"3\t4"))
    rejects = tmp_path / "rejects"
    for options in ((), ("--force", "--shard_bytes", 1)):
        outcome = run(work, "--rejects", rejects, *options)
        assert outcome.markets[MARKET]["rejected"] == {"fields": 4, "length": 1}
        lines = b"".join(path.read_bytes() for path in sorted(rejects.rglob("*.tsv"))).split(b"\n")
        found = [line.split(b"\t", 3) for line in lines if line]
        name, other = os.fsencode(first), os.fsencode(second)
        assert [(path, int(line), reason) for path, line, reason, _ in found] == [
            (name, 2, b"fields"),
            (name, 204, b"fields"),
            (name, 205, b"length"),
            (other, 1, b"fields"),
            (other, 202, b"fields"),
        ]
        raw = [row for *_, row in found]
        assert raw[0].removesuffix(b"\r") == b"\xef\xbb\xbfbad"
        assert raw[1] == b"worse \0\xff"
        assert long.startswith(raw[2])
        assert raw[2]
        assert raw[3:] == [b"1 2", b"3\t4"]


# --- files that are not what they were -----------------------------------------------------------


def test_x_counts_if_x_gz_is_there_too(work: Workspace) -> None:
    put(work, "2024-03-02-00", GOOD)
    put(work, "2024-03-02-00.gz", gzip.compress(GOOD)[:300])
    outcome = run(work)
    assert outcome.markets[MARKET]["files"] == 1
    assert outcome.markets[MARKET]["damaged"] == []
    assert_as_oracle(work, outcome)


@pytest.mark.parametrize(("before", "after"), [("", ".gz"), (".gz", "")])
def test_twin_is_read_where_the_indexed_file_is_gone(
    work: Workspace, before: str, after: str
) -> None:
    packed = {"": GOOD, ".gz": gzip.compress(GOOD)}
    path = put(work, f"2024-03-02-00{before}", packed[before])
    work.index().expect()
    path.unlink()
    put(work, f"2024-03-02-00{after}", packed[after])
    outcome = work.backfill().expect()
    assert outcome.markets[MARKET]["missing"] == []
    assert_as_oracle(work, outcome)


def test_vanished_file_fails_its_market_alone(work: Workspace) -> None:
    put(work, "2024-03-02-00", GOOD)
    gone = put(work, "2024-03-02-04", GOOD)
    work.index().expect()
    gone.unlink()
    outcome = run(work)
    row = outcome.markets[MARKET]
    assert outcome.code == 1
    assert row["status"] == "failed"
    assert row["missing"] == [str(gone)]
    assert str(gone) in row["error"]
    assert str(gone) in outcome.output
    assert list(contents(work.out)) == [BYSTANDER]

    outcome = run(work, "--skip-missing").expect()
    row = outcome.markets[MARKET]
    assert row["status"] == "written"
    assert row["missing"] == [str(gone)]
    assert str(gone) in outcome.output
    assert contents(work.out)[MARKET] == oracle.backfill(work.archive)[MARKET].data


def test_vanished_file_in_the_middle_that_comes_back_is_reported(work: Workspace) -> None:
    put(work, "2024-03-02-00", GOOD)
    path = put(work, "2024-03-02-04", b"%d 101 1 1\n" % (T0 + 14_400_000))
    put(work, "2024-03-02-08", b"%d 102 1 1\n" % (T0 + 28_800_000))
    work.index().expect()
    content = path.read_bytes()
    path.unlink()
    work.backfill("--skip-missing").expect()
    path.write_bytes(content)
    outcome = run(work).expect()
    assert outcome.markets[MARKET]["late_files"] == 1
    assert "candlebeam backfill" in outcome.output
    run(work, "--late", "rebuild").expect()
    assert_files_agree(work.out, oracle.backfill(work.archive))


def test_vanished_last_file_that_comes_back(work: Workspace) -> None:
    put(work, "2024-03-02-00", GOOD)
    path = put(work, "2024-03-02-04", b"%d 101 1 1\n" % (T0 + 14_400_000))
    work.index().expect()
    content = path.read_bytes()
    path.unlink()
    work.backfill("--skip-missing").expect()
    path.write_bytes(content)
    outcome = run(work).expect()
    assert outcome.totals["late_trades"] == 0
    assert_files_agree(work.out, oracle.backfill(work.archive))


def test_folder_named_like_a_file_is_skipped(work: Workspace) -> None:
    put(work, "2024-03-02-00", GOOD)
    (work.archive / FOLDER / "2024-03-02-04").mkdir()
    put(work, "2024-03-02-00.gz", gzip.compress(GOOD), f"{FOLDER}/2024-03-02-08.gz")
    indexed = work.index().expect()
    assert "2024-03-02-04" in indexed.output
    assert_as_oracle(work, run(work))


def test_file_that_turns_into_a_folder_fails_its_market_alone(work: Workspace) -> None:
    path = put(work, "2024-03-02-00", GOOD)
    work.index().expect()
    path.unlink()
    path.mkdir()
    outcome = run(work)
    assert outcome.code == 1
    row = outcome.markets[MARKET]
    assert row["status"] == "failed"
    assert str(path) in row["error"]
    assert "folder" in row["error"]


def test_pipe_where_a_file_was_does_not_hang(work: Workspace) -> None:
    path = put(work, "2024-03-02-00", GOOD)
    work.index().expect()
    path.unlink()
    os.mkfifo(path)
    outcome = run(work)
    assert outcome.code == 1
    assert str(path) in outcome.markets[MARKET]["error"]


def test_symlink_loops_end(work: Workspace) -> None:
    put(work, "2024-03-02-00", GOOD)
    (work.archive / "RAM" / "loop").symlink_to(work.archive, target_is_directory=True)
    (work.archive / FOLDER / "loop").symlink_to("..", target_is_directory=True)
    (work.archive / FOLDER / "2024-03-02-08").symlink_to("nowhere")
    outcome = run(work)
    assert outcome.code == 0
    assert outcome.markets[MARKET]["files"] == 1
    assert outcome.markets[MARKET]["trades"] == 200


def test_links_to_themselves_are_named_by_index(work: Workspace) -> None:
    put(work, "2024-03-02-00", GOOD)
    links = [work.archive / FOLDER / "2024-03-02-04", work.archive / "RAM" / "btc" / "self"]
    for link in links:
        link.symlink_to(link.name)
    indexed = work.index().expect(1)
    for link in links:
        assert f"{link}: Too many levels of symbolic links" in indexed.output
    assert work.backfill().expect().markets[MARKET]["trades"] == 200


def test_linked_folders_and_files_are_read(work: Workspace, tmp_path: Path) -> None:
    elsewhere = Workspace(tmp_path / "elsewhere")
    put(elsewhere, "2024-03-02-00", GOOD)
    (work.archive / "PI").symlink_to(elsewhere.archive / "RAM", target_is_directory=True)
    outcome = run(work)
    assert contents(work.out)["PI/BINANCE/btcusdt"] == contents(work.out)[BYSTANDER]
    assert outcome.code == 0


# --- permissions ---------------------------------------------------------------------------------


@pytest.fixture
def open_work() -> Iterator[Workspace]:
    """A workspace of a user who may not read everything, with two markets that are well."""
    with unprivileged_folder() as folder:
        found = Workspace(folder)
        put(found, "2024-03-02-00", GOOD, "RAM/btc/KRAKEN/XBT-USDT")
        put(found, "2024-03-02-00", GOOD)
        yield found


def test_file_without_read_permission_fails_its_market_alone(open_work: Workspace) -> None:
    path = open_work.archive / FOLDER / "2024-03-02-00"
    path.chmod(0)
    outcome = run(open_work)
    assert outcome.code == 1
    row = outcome.markets[MARKET]
    assert row["status"] == "failed"
    assert str(path) in row["error"]
    assert "ermission denied" in row["error"]
    assert row["missing"] == []
    # It is there, so leaving it out is not what --skip-missing is for.
    assert run(open_work, "--skip-missing").markets[MARKET]["status"] == "failed"
    path.chmod(0o600)
    assert run(open_work).code == 0
    assert_files_agree(open_work.out, oracle.backfill(open_work.archive))


def test_folder_without_read_permission_is_named_by_index(open_work: Workspace) -> None:
    folder = open_work.archive / FOLDER
    folder.chmod(0)
    indexed = open_work.index()
    assert indexed.code == 1
    assert str(folder) in indexed.output
    assert "ermission denied" in indexed.output
    folder.chmod(0o700)
    assert open_work.index().code == 0


def test_root_that_is_no_folder(tmp_path: Path) -> None:
    for root in (tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").write_bytes(b"")
        outcome = run_here("index", root, "--db", tmp_path / "index.sqlite")
        assert outcome.code == 2
        assert str(root) in outcome.output


# --- databases -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"not a database, not at all " * 99, b"SQLite format 3\0"]
)
def test_catalog_that_is_none(tmp_path: Path, content: bytes) -> None:
    work = Workspace(tmp_path)
    work.db.write_bytes(content)
    outcome = work.backfill()
    assert outcome.code == 1
    assert str(work.db) in outcome.output
    assert "Traceback" not in outcome.output


def test_catalog_that_is_not_there(tmp_path: Path) -> None:
    outcome = Workspace(tmp_path).backfill()
    assert outcome.code in (1, 2)
    assert "candlebeam index" in outcome.output

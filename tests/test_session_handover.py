"""A backfill of Databento files goes on where a live session ended, and a session after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from candlebeam.feeds.stream_errors import begin_stream
from candlebeam.formats.candles.companion import SESSION_ROOT
from tests.command_line import Workspace, companions, contents, run_here
from tests.dbn_files import MIDNIGHT_NS, write_dbn
from tests.live_gateway import KEY, live_gateway
from tests.live_streams import (
    ABC,
    NAMES,
    SECOND,
    XYZ,
    Stream,
    at,
    end_of,
    in_batch,
    options_of,
)

#: Seven minutes of two markets, a trade every seven seconds; both have some in every minute.
TRADES = [
    at(place, instrument=7 + place % 3 // 2, side=b"AB"[place % 2 : place % 2 + 1])
    for place in range(60)
]
#: So many are older than three minutes, and so many than four.
THREE_MINUTES, FOUR_MINUTES = 26, 35
#: The session ends within the fourth minute.
ENDED = 31


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DATABENTO_API_KEY", KEY)
    begin_stream()
    yield
    begin_stream()


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def stream(
    work: Workspace, trades: Sequence[bytes], now_ns: int | None = None, *, quiet: bool = False
) -> None:
    """Has a session end when it has had the trades, and knows that it is some time later."""
    with live_gateway(*NAMES, now_ns=MIDNIGHT_NS) as gateway:
        run = Stream(options_of(gateway, work)._replace(quiet_candles=quiet))
        run.until_connected()
        gateway.send(*trades)
        gateway.now_ns = end_of(trades) if now_ns is None else now_ns
        run.until_heartbeat(gateway)
        run.stop()


def dbn(work: Workspace, name: str, first: int, trades: Sequence[bytes]) -> str:
    """A file of trades, which says that it starts at the place of the first."""
    return write_dbn(
        work.folder / f"{name}.dbn",
        [*NAMES, *trades],
        (),
        schema=None,
        stype_in=None,
        start_ns=MIDNIGHT_NS + first * 7 * SECOND,
    )


def backfill(work: Workspace, *paths: str, code: int = 0, options: Sequence[str] = ()) -> str:
    arguments = [word for path in paths for word in ("--dbn", path)]
    return run_here("backfill", *arguments, "--out", work.out, *options).expect(code).output


def assert_all(work: Workspace, trades: Sequence[bytes] = TRADES) -> None:
    """The candles are those of a backfill of the trades, and so is what is known of them."""
    batch = in_batch(work, [*NAMES, *trades])
    assert contents(work.out) == contents(batch.out)
    expected = companions(batch.out)
    for market, found in companions(work.out).items():
        for name in ("startTs", "endTs", "records", "priceScale"):
            assert found[name] == expected[market][name]
        for name in ("priceDecimals", "highestPrice", "pricesExact", "lateTrades"):
            assert found["candlebeam"][name] == expected[market]["candlebeam"][name]


def roots(work: Workspace) -> dict[str, list[str]]:
    """The roots of the inputs of every market."""
    return {
        market: [root for root, *_ in each["candlebeam"]["inputs"]]
        for market, each in companions(work.out).items()
    }


def test_file_that_has_everything(work: Workspace) -> None:
    stream(work, TRADES[:ENDED], MIDNIGHT_NS)
    path = dbn(work, "all", 0, TRADES)
    backfill(work, path)
    assert_all(work)
    assert roots(work) == {market: [SESSION_ROOT, str(work.folder)] for market in (ABC, XYZ)}
    before = companions(work.out)
    assert "2 up to date" in backfill(work, path)
    assert companions(work.out) == before


def test_files_from_before_the_last_candle_on(work: Workspace) -> None:
    stream(work, TRADES[:ENDED], MIDNIGHT_NS)
    first = dbn(work, "later", 15, TRADES[15:45])
    backfill(work, first, dbn(work, "latest", 45, TRADES[45:]))
    assert_all(work)


@pytest.mark.parametrize("quiet", [False, True], ids=["", "quiet candles"])
def test_session_that_broke_off_in_its_last_candle(work: Workspace, quiet: bool) -> None:
    """The clock has closed the candle, of which the file has more trades."""
    stream(work, TRADES[:ENDED], quiet=quiet)
    backfill(work, dbn(work, "all", 0, TRADES))
    assert_all(work)


def test_file_that_begins_where_the_candles_end(work: Workspace) -> None:
    """As the command names it that a stream tells where trades may be missing."""
    stream(work, TRADES[:THREE_MINUTES])
    backfill(work, dbn(work, "rest", THREE_MINUTES, TRADES[THREE_MINUTES:]))
    assert_all(work)


@pytest.mark.parametrize("first", [0, ENDED], ids=["from before it", "from within it"])
def test_last_candle_of_which_the_files_have_less(work: Workspace, first: int) -> None:
    """It stays as the session has made it, whether the files have none or some of its trades."""
    stream(work, TRADES[:ENDED])
    some = [each for place, each in enumerate(TRADES[:ENDED]) if place >= first and place % 2]
    early = dbn(work, "early", first, some)
    backfill(work, early, dbn(work, "late", FOUR_MINUTES + 5, TRADES[FOUR_MINUTES:]))
    assert_all(work, [*TRADES[:ENDED], *TRADES[FOUR_MINUTES:]])


def test_nothing_new_leaves_the_candles(work: Workspace) -> None:
    stream(work, TRADES[:ENDED])
    before = contents(work.out), companions(work.out)
    told = backfill(work, dbn(work, "some", 0, TRADES[: ENDED - 4]))
    assert "2 up to date" in told
    assert (contents(work.out), companions(work.out)) == before
    backfill(work, dbn(work, "some", 0, TRADES))
    assert_all(work)


def test_session_backfill_and_session(work: Workspace) -> None:
    stream(work, TRADES[:ENDED])
    first = dbn(work, "first", 0, TRADES[:45])
    backfill(work, first)
    stream(work, TRADES[:55])
    assert roots(work) == {market: [SESSION_ROOT] for market in (ABC, XYZ)}
    backfill(work, first, dbn(work, "second", 45, TRADES[45:]))
    assert_all(work)


def test_what_is_older_than_the_session_is_told(work: Workspace) -> None:
    """Only `--force` makes the market of the files alone: they may not have what it has had."""
    stream(work, TRADES[20:ENDED], end_of(TRADES[:ENDED]))
    path = dbn(work, "all", 0, TRADES)
    told = "1 input begins before the first candle; what is older than it is not taken in"
    refused = backfill(work, path, options=("--late", "rebuild"), code=1)
    assert f"{told}; the candles have trades of a live session" in refused
    assert told in backfill(work, path)
    assert_all(work, TRADES[20:])
    backfill(work, path, options=("--force",))
    assert_all(work)
    assert roots(work) == {market: [str(work.folder)] for market in (ABC, XYZ)}


def test_late_input_behind_a_session_makes_nothing_again(work: Workspace) -> None:
    stream(work, TRADES[:ENDED])
    last = dbn(work, "last", 45, TRADES[45:])
    backfill(work, last)
    before = contents(work.out)
    late = dbn(work, "late", FOUR_MINUTES, TRADES[FOUR_MINUTES:45])
    told = backfill(work, late, last, options=("--late", "rebuild"), code=1)
    assert "1 inputs were indexed late; the candles have trades of a live session" in told
    assert contents(work.out) == before
    assert "late" in backfill(work, late, last)
    assert contents(work.out) == before


def test_candles_of_a_session_that_are_damaged_are_not_made_of_files(work: Workspace) -> None:
    stream(work, TRADES[:ENDED])
    records = work.out / f"{ABC}.bin"
    records.write_bytes(records.read_bytes()[:56])
    path = dbn(work, "all", 0, TRADES)
    told = backfill(work, path, code=1)
    assert f"{ABC}.bin has 56 of 224 bytes; the candles have trades of a live session" in told
    backfill(work, path, options=("--force",))
    assert_all(work)

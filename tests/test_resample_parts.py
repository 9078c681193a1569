"""The parts of resampling that need no command: the second thread, sums of files, the transform."""

from __future__ import annotations

import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import UsageError
from candlebeam.io.background import Background
from candlebeam.io.file_sum import FileSum
from candlebeam.model import Bars, Timeframe
from candlebeam.rules.resample import resample
from candlebeam.transforms.resample import ResampleBars
from tests.aligned_bars import (
    bars_from,
    minutes,
)
from tests.aligned_runs import without_fsync
from tests.command_line import run_here
from tests.random_bars import exact
from tests.resample_runs import (
    MINUTE,
    PERIODS,
    contents,
    write_csv,
)

_no_power_cuts = pytest.fixture(scope="module", autouse=True)(without_fsync)


def test_background_makes_calls_in_order_and_tells_what_they_raise() -> None:
    background = Background(most=3)
    made: list[int] = []
    for number in range(50):
        background.call(made.append, number)
    background.wait()
    assert made == list(range(50))
    background.call(made.index, -1)
    with pytest.raises(ValueError, match="-1 is not in list"):
        background.wait()
    background.call(made.index, -1)

    def go_on() -> None:
        for _ in range(10):
            background.call(made.clear)

    with pytest.raises(ValueError, match="-1 is not in list"):
        go_on()
    background.close()


def test_background_leaves_out_what_has_not_begun_when_it_is_closed() -> None:
    background = Background()
    begun, made = threading.Event(), []

    def first() -> None:
        begun.set()
        while len(background._calls) < 2 or not background._calls[-1].cancelled():
            time.sleep(0.001)
        made.append(1)

    background.call(first)
    background.call(made.append, 2)
    assert begun.wait(60)
    background.close()
    assert made == [1]


def test_bar_that_no_file_can_hold_is_told(tmp_path: Path) -> None:
    """It is found out in the background."""
    path = tmp_path / "SPY_1969_12_1m.csv"
    write_csv(path, [(-MINUTE * (9 - n), 1.0, 1.0, 1.0, 1.0, 1.0) for n in range(9)])
    failed = run_here("resample", path, "--to", tmp_path / "to", "--timeframes", "1m").expect(1)
    assert "SPY: expected a bar up to" in failed.stderr
    assert contents(tmp_path / "to") == {}


@given(st.binary(max_size=99), st.lists(st.integers(0, 120), max_size=9))
def test_sum_of_a_file_is_that_of_its_first_bytes(data: bytes, ends: list[int]) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        found = FileSum(file.name)
        for end in ends:
            assert found.until(end) == zlib.crc32(data[:end])
        assert found.until() == zlib.crc32(data)


def test_transform_resamples_each_element_on_its_own() -> None:
    whole, part = bars_from(minutes(0, 130, 3)), bars_from(minutes(100, 110))
    shuffled = part.part(np.arange(10)[::-1])
    with TestPipeline() as pipeline:
        made = (
            pipeline
            | beam.Create([("a", whole), ("b", part), ("b", shuffled), ("c", Bars.join([]))])
            | ResampleBars(periods=PERIODS[:4], tz="Europe/Berlin", timeframe=Timeframe(MINUTE))
            | beam.MapTuple(lambda key, bars: (key, exact(bars)))
        )
        wanted = [
            ((key, str(period)), exact(resample(bars, [period], "Europe/Berlin")[period]))
            for key, bars in (("a", whole), ("b", part), ("b", part), ("c", Bars.join([])))
            for period in PERIODS[:4]
        ]
        assert_that(made, equal_to(wanted))


@pytest.mark.parametrize(
    "wrong",
    [
        {"periods": []}, {"periods": [PERIODS[0]] * 2}, {"tz": "Nowhere"},
        {"timeframe": Timeframe(600_000)},
    ],
)  # fmt: skip
def test_transform_refuses_what_cannot_be_when_it_is_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        ResampleBars(**{"periods": PERIODS[:1], **wrong})

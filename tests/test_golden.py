"""The candle files that another program makes of the same archives, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import oracle
from tests.command_line import Workspace, companions, contents, run_here

GOLDEN = Path(__file__).parent / "data" / "golden"
UNCORRECTED = ("--no-corrections", "--price-scale", "10000")
CORRECTED = ("--liquidations", "included", "--price-scale", "10000")


@pytest.mark.parametrize(
    ("archive", "expected", "options", "left_out"),
    [
        ("ordered", "uncorrected_ordered", UNCORRECTED, set()),
        ("shuffled", "uncorrected_shuffled", UNCORRECTED, set()),
        # The other program normalizes this symbol twice, so it has no expected files.
        (
            "ordered",
            "corrected_liquidations_included_ordered",
            CORRECTED,
            {"RAM/BITGET/SOLUSDT", "RAM/BITGET/SOLUSDT-SPOT"},
        ),
    ],
)
def test_golden_bytes(
    tmp_path: Path, archive: str, expected: str, options: tuple[str, ...], left_out: set[str]
) -> None:
    work = Workspace(tmp_path)
    run_here("index", GOLDEN / archive, "--db", work.db).expect()
    work.backfill(*options).expect()

    golden = contents(GOLDEN / "expected" / expected)
    ours = contents(work.out)
    assert len(golden) >= 8
    assert set(ours) - set(golden) == left_out
    for name, data in golden.items():
        assert ours[name] == data, name
    for name, companion in companions(GOLDEN / "expected" / expected).items():
        path = work.out / f"{name}.json"
        assert companion.items() <= json.loads(path.read_bytes()).items(), name


@pytest.mark.parametrize(
    ("archive", "expected", "settings"),
    [
        ("ordered", "uncorrected_ordered", oracle.Settings(frozenset(), price_scale=10_000)),
        ("shuffled", "uncorrected_shuffled", oracle.Settings(frozenset(), price_scale=10_000)),
        (
            "ordered",
            "corrected_liquidations_included_ordered",
            oracle.Settings(liquidations_included=True, price_scale=10_000),
        ),
    ],
)
def test_oracle_agrees_with_golden_bytes(
    archive: str, expected: str, settings: oracle.Settings
) -> None:
    answers = oracle.backfill(GOLDEN / archive, settings)
    for name, data in contents(GOLDEN / "expected" / expected).items():
        assert answers[name].data == data, name
    for name, companion in companions(GOLDEN / "expected" / expected).items():
        assert answers[name].companion == companion, name

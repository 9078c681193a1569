"""Holding what a run wrote and reported against what the oracle says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.command_line import Outcome, companions, contents, leftovers
from tests.oracle import RECORD, Answer


def assert_files_agree(out: Path, answers: Mapping[str, Answer]) -> None:
    """The candle files under `out` are those of the answers: same markets, bytes, companions."""
    expected = {
        answer.path.removesuffix(".bin"): answer
        for answer in answers.values()
        if answer.data is not None
    }
    found = contents(out)
    assert sorted(found) == sorted(expected), (sorted(found), sorted(expected))
    for name, answer in expected.items():
        assert found[name] == answer.data, f"{name}: {difference(found[name], answer)}"
    described = companions(out)
    assert sorted(described) == sorted(expected), (sorted(described), sorted(expected))
    for name, answer in expected.items():
        assert_companion_agrees(described[name], answer)
    assert leftovers(out) == [], leftovers(out)


def assert_companion_agrees(companion: Mapping[str, Any], answer: Answer) -> None:
    assert answer.companion is not None
    ours = {key: companion.get(key) for key in answer.companion}
    assert ours == answer.companion, (ours, answer.companion)
    assert companion["collector"] == answer.market[0], companion


def assert_report_agrees(outcome: Outcome, answers: Mapping[str, Answer]) -> None:
    """The report of a run that made everything is what the answers add up to."""
    rows = outcome.markets
    assert sorted(rows) == sorted(answers), (sorted(rows), sorted(answers))
    for name, answer in answers.items():
        row = rows[name]
        damaged = sorted(file["path"] for file in row["damaged"])
        assert damaged == sorted(answer.damaged), (name, damaged, answer.damaged)
        assert all(file["damage"] for file in row["damaged"]), name
        status = "failed" if answer.overflow else "empty" if answer.data is None else "written"
        expected = {
            "status": status,
            "files": answer.files,
            "trades": answer.trades,
            "rejected": dict(answer.rejected),
            "missing": [],
            "late_trades": 0,
            "late_files": 0,
        }
        if answer.overflow:
            assert "does not fit" in row["error"], (name, row)
        else:
            expected |= {
                "error": None,
                "candles": answer.candles,
                "records": answer.records,
                "gaps": answer.records - answer.candles,
            }
        found = {key: row[key] for key in expected}
        assert found == expected, (name, found, expected)
    sums = {
        "markets": len(answers),
        "files": sum(answer.files for answer in answers.values()),
        "trades": sum(answer.trades for answer in answers.values()),
        "failed": sum(answer.overflow for answer in answers.values()),
    }
    totals = {key: outcome.totals[key] for key in sums}
    assert totals == sums, (totals, sums)
    assert outcome.code == int(sums["failed"] > 0), outcome.output


def difference(found: bytes, answer: Answer) -> str:
    """Where two candle files part, in words."""
    assert answer.data is not None
    if len(found) != len(answer.data):
        return f"{len(found)} bytes, not {len(answer.data)}"
    for place, (ours, theirs) in enumerate(
        zip(RECORD.iter_unpack(found), RECORD.iter_unpack(answer.data), strict=True)
    ):
        if ours != theirs:
            return f"record {place}: {ours}, not {theirs}"
    return "the same"

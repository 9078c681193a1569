"""The command line of a stream: what is wrong is told at once, before anything is started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.command_line import run_here
from tests.engines import CONFIGS

ON_FLINK = ("--runner-config", CONFIGS / "flink-stream.yaml")
CASES = {
    "no runner": ((), "a stream runs on Flink: use --runner-config "),
    "in process": (
        ("--runner-config", CONFIGS / "direct.yaml"),
        "a stream runs on Flink: use --runner-config ",
    ),
    "no such root": (ON_FLINK, "--root .*: expected a folder with an archive, found none"),
    "detached from nothing": ((*ON_FLINK, "--detach"), "--detach is for a Flink cluster"),
    "a wrong lateness": ((*ON_FLINK, "--lateness", "soon"), "duration 'soon': expected "),
    "a wrong idle time": ((*ON_FLINK, "--idle", "-5s"), "duration '-5s': expected "),
    "a wrong clock": ((*ON_FLINK, "--clock", "noon"), "--clock noon: expected TIME,SPEED"),
    "a clock that stands": (
        (*ON_FLINK, "--clock", "2024-03-01T00:00Z,0"),
        ".*expected a speed above 0",
    ),
    "two sources": (
        (*ON_FLINK, "--databento", "GLBX.MDP3", "--symbols", "ES.v.0"),
        "expected one of --root and --databento",
    ),
    "two ways to correct": (
        (*ON_FLINK, "--no-corrections", "--correction", "random-side-2019"),
        "--no-corrections and --correction: expected one of them",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_makes_no_sense_is_told(name: str, tmp_path: Path) -> None:
    options, told = CASES[name]
    root = tmp_path / "archive"
    if name != "no such root":
        root.mkdir()
    outcome = run_here("stream", "--root", root, "--out", tmp_path / "out", *options)
    outcome.expect(2)
    assert outcome.stderr.count("\n") == 1
    assert re.match(f"candlebeam: {told}", outcome.stderr), outcome.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_to_follow(tmp_path: Path) -> None:
    outcome = run_here("stream", "--out", tmp_path / "out", *ON_FLINK)
    outcome.expect(2)
    assert outcome.stderr == (
        "candlebeam: expected one of --root and --databento, to say what to follow\n"
    )

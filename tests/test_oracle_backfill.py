"""Whole backfills against the naive oracle, on archives that hold everything the rules speak of."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings

from tests import oracle
from tests.agreement import assert_files_agree, assert_report_agrees
from tests.archives import Archive, archives, edges_archive, make_archive
from tests.command_line import Workspace, contents


def large_archive(seed: int) -> Archive:
    return make_archive(Random(seed), listings=25, files=4, rows=40)


def write(folder: Path, archive: Archive) -> Workspace:
    work = Workspace(folder)
    archive.write(work.archive)
    return work


@pytest.mark.parametrize("seed", range(8))
def test_backfill_equals_oracle(tmp_path: Path, seed: int) -> None:
    work = write(tmp_path, large_archive(seed))
    answers = oracle.backfill(work.archive)
    work.index().expect()
    outcome = work.backfill()
    assert_files_agree(work.out, answers)
    assert_report_agrees(outcome, answers)


def test_edges_of_corrections_equal_oracle(tmp_path: Path) -> None:
    work = write(tmp_path, edges_archive(Random(0)))
    answers = oracle.backfill(work.archive)
    work.index().expect()
    outcome = work.backfill()
    assert_files_agree(work.out, answers)
    assert_report_agrees(outcome, answers)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(archive=archives())
def test_backfill_equals_oracle_on_any_archive(archive: Archive) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = write(Path(folder), archive)
        work.archive.mkdir(exist_ok=True)
        answers = oracle.backfill(work.archive)
        work.index().expect()
        outcome = work.backfill("--shard_bytes", 200)
        assert_files_agree(work.out, answers)
        assert_report_agrees(outcome, answers)


@pytest.mark.parametrize(
    ("options", "meaning"),
    [
        (("--no-corrections",), oracle.Settings(corrections=frozenset())),
        *(
            (("--correction", name), oracle.Settings(corrections=frozenset({name})))
            for name in sorted(oracle.ALL_CORRECTIONS)
        ),
        (
            ("--correction", oracle.OKEX_SIZE, "--correction", oracle.RANDOM_SIDE),
            oracle.Settings(corrections=frozenset({oracle.OKEX_SIZE, oracle.RANDOM_SIDE})),
        ),
        (("--liquidations", "included"), oracle.Settings(liquidations_included=True)),
        (("--price-scale", "1"), oracle.Settings(price_scale=1)),
        (("--timeframe", "1s"), oracle.Settings(timeframe_ms=1_000)),
        (("--timeframe", "5m"), oracle.Settings(timeframe_ms=300_000)),
        (("--timeframe", "1d"), oracle.Settings(timeframe_ms=86_400_000)),
    ],
)
def test_settings_equal_oracle(
    tmp_path: Path, options: tuple[str, ...], meaning: oracle.Settings
) -> None:
    work = write(
        tmp_path, make_archive(Random(99), listings=16, rows=25, regimes=("plain", "tiny"))
    )
    answers = oracle.backfill(work.archive, meaning)
    work.index().expect()
    outcome = work.backfill(*options)
    assert_files_agree(work.out, answers)
    assert_report_agrees(outcome, answers)


@pytest.mark.parametrize(
    "options",
    [
        ("--shard_bytes", 1),
        ("--shard_bytes", 700),
        ("--shard_bytes", 5_000, "--direct_num_workers", 1),
        ("--direct_num_workers", 3, "--direct_running_mode", "multi_threading"),
        ("--direct_num_workers", 2, "--direct_running_mode", "in_memory", "--shard_bytes", 2_000),
    ],
    ids=str,
)
def test_splitting_and_running_mode_never_matter(
    tmp_path: Path, options: tuple[object, ...]
) -> None:
    work = write(tmp_path, large_archive(7))
    work.index().expect()
    outcome = work.backfill(*options)
    assert_files_agree(work.out, oracle.backfill(work.archive))
    assert_report_agrees(outcome, oracle.backfill(work.archive))


def test_worker_processes_never_matter(tmp_path: Path) -> None:
    work = write(tmp_path, large_archive(7))
    work.index().expect()
    outcome = work.backfill_process(
        "--direct_num_workers",
        2,
        "--direct_running_mode",
        "multi_processing",
        "--shard_bytes",
        4_000,
    )
    assert_files_agree(work.out, oracle.backfill(work.archive))
    assert_report_agrees(outcome, oracle.backfill(work.archive))


@pytest.mark.parametrize("seed", range(3))
def test_order_of_discovery_never_matters(tmp_path: Path, seed: int) -> None:
    archive = large_archive(seed)
    paths = list(archive.files)
    Random(seed).shuffle(paths)
    work = Workspace(tmp_path)
    while paths:
        batch, paths = paths[:20], paths[20:]
        Archive({path: archive.files[path] for path in batch}).write(work.archive)
        work.index().expect()
    outcome = work.backfill()
    assert_files_agree(work.out, oracle.backfill(work.archive))
    assert_report_agrees(outcome, oracle.backfill(work.archive))


def test_subtrees_can_be_indexed_one_by_one(tmp_path: Path) -> None:
    work = write(tmp_path, large_archive(3))
    folders = sorted({path.parts[-5:-2] for path in work.archive.rglob("*/*/*/*/*")}, reverse=True)
    for parts in folders:
        if (work.archive / "/".join(parts)).is_dir():
            work.index("--include", "/".join(parts)).expect()
    work.backfill()
    assert_files_agree(work.out, oracle.backfill(work.archive))


def test_filters_leave_the_other_markets_alone(tmp_path: Path) -> None:
    work = write(tmp_path, large_archive(5))
    answers = oracle.backfill(work.archive)
    work.index().expect()
    work.backfill("--exchange", "okex")
    chosen = {name: answer for name, answer in answers.items() if answer.market[1] == "OKEX"}
    assert chosen
    assert_files_agree(work.out, chosen)
    work.backfill("--collector", "ram", "--exchange", "POLONIEX")
    chosen |= {n: a for n, a in answers.items() if a.market[:2] == ("RAM", "POLONIEX")}
    assert_files_agree(work.out, chosen)
    work.backfill("--symbol", "BTCUSD")
    chosen |= {n: a for n, a in answers.items() if a.market[2] == "BTCUSD"}
    assert_files_agree(work.out, chosen)
    assert len(contents(work.out)) < len(answers)

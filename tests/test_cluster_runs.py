"""The same bytes wherever a backfill runs: in process, on Flink, on Spark, however parallel."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from clusters.flink import FlinkCluster
from clusters.spark import SparkCluster
from tests import engines, oracle
from tests.agreement import assert_files_agree, assert_report_agrees
from tests.archives import make_archive
from tests.command_line import Outcome, Workspace, contents, leftovers, run_process

pytestmark = pytest.mark.cluster(minutes=6)
#: So that even the small files of the archive make several shards a market.
_SHARD_BYTES = 300


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """An archive with everything the rules speak of, indexed, and made in process."""
    engines.need_clusters()
    found = Workspace(tmp_path_factory.mktemp("archive"))
    make_archive(Random(4), listings=25, files=3, rows=40).write(found.archive)
    found.index().expect()
    answers = oracle.backfill(found.archive)
    outcome = found.backfill("--shard_bytes", _SHARD_BYTES)
    assert_files_agree(found.out, answers)
    assert_report_agrees(outcome, answers)
    return found


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    yield from engines.flink_cluster(tmp_path_factory.mktemp("flink"))


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkCluster]:
    yield from engines.spark_cluster(tmp_path_factory.mktemp("spark"))


def run(work: Workspace, folder: Path, *options: object) -> tuple[Workspace, Outcome]:
    """A backfill of the archive into an output of its own."""
    folder.mkdir(exist_ok=True)
    mine = Workspace(folder)
    shutil.copy(work.db, mine.db)
    return mine, mine.backfill_process("--shard_bytes", _SHARD_BYTES, *options)


def assert_same(work: Workspace, mine: Workspace, outcome: Outcome) -> None:
    """The output and the report are those of the run in process."""
    answers = oracle.backfill(work.archive)
    assert_report_agrees(outcome, answers)
    assert contents(mine.out) == contents(work.out)
    assert {p.relative_to(mine.out): p.read_bytes() for p in mine.out.rglob("*.json")} == {
        p.relative_to(work.out): p.read_bytes() for p in work.out.rglob("*.json")
    }
    assert leftovers(mine.out) == []


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_embedded_flink(work: Workspace, tmp_path: Path, parallelism: int) -> None:
    options = engines.embedded_flink()
    mine, outcome = run(work, tmp_path, *options, f"--parallelism={parallelism}")
    assert_same(work, mine, outcome)


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_standalone_flink(
    work: Workspace, flink: FlinkCluster, tmp_path: Path, parallelism: int
) -> None:
    options = [*engines.on_flink(flink), "--sdk_worker_parallelism=2"]
    mine, outcome = run(work, tmp_path, *options, f"--parallelism={parallelism}")
    assert_same(work, mine, outcome)


def test_jar_that_holds_the_pipeline(work: Workspace, flink: FlinkCluster, tmp_path: Path) -> None:
    options = [*engines.on_flink(flink), "--flink_submit_uber_jar"]
    mine, outcome = run(work, tmp_path, *options)
    assert_same(work, mine, outcome)


def test_workers_that_task_managers_start(
    work: Workspace, flink: FlinkCluster, tmp_path: Path
) -> None:
    boot = tmp_path / "boot"
    boot.write_text(f'#!/bin/sh\nexec {engines.BOOT} "$@"\n')
    boot.chmod(0o755)
    options = [*engines.on_flink(flink), "--environment_type=PROCESS"]
    options = [o for o in options if not str(o).startswith("--environment_config")]
    config = f'{{"command": "{boot}"}}'
    mine, outcome = run(work, tmp_path / "run", *options, f"--environment_config={config}")
    assert_same(work, mine, outcome)


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_local_spark(work: Workspace, tmp_path: Path, parallelism: int) -> None:
    options = engines.local_spark()
    mine, outcome = run(work, tmp_path, *options, f"--spark_master_url=local[{parallelism}]")
    assert_same(work, mine, outcome)


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_standalone_spark(
    work: Workspace, spark: SparkCluster, tmp_path: Path, parallelism: int
) -> None:
    cores = f"--job_server_jvm_properties=-Dspark.cores.max={parallelism}"
    mine, outcome = run(work, tmp_path, *engines.on_spark(spark), cores)
    assert_same(work, mine, outcome)


def test_growing_archive_on_flink(work: Workspace, flink: FlinkCluster, tmp_path: Path) -> None:
    """A run that goes on from one in process equals one in process, even where prices rescale."""
    files = [path for path in sorted(work.archive.rglob("*-*")) if path.is_file()]
    part = Workspace(tmp_path / "part")
    for path in files[::2]:
        target = part.archive / path.relative_to(work.archive)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    part.index().expect()
    part.backfill("--shard_bytes", _SHARD_BYTES)
    shutil.copytree(work.archive, part.archive, dirs_exist_ok=True)
    part.index().expect()
    both = []
    for name, options in (("here", []), ("there", engines.on_flink(flink))):
        out = tmp_path / name
        shutil.copytree(part.out, out)
        arguments = ("--db", part.db, "--out", out, "--shard_bytes", _SHARD_BYTES, *options)
        run_process("backfill", *arguments)
        both.append({p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()})
    assert both[0] == both[1]
    assert contents(tmp_path / "there") != contents(part.out)

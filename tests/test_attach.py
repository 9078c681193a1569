"""Waiting for a job that goes on without its driver; with real clusters: test_cluster_faults."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from candlebeam.io.cancellation import cancel_all
from candlebeam.pipelines.attach import run_attach
from candlebeam.pipelines.backfill import staging_of
from tests.loopback import json_answer, rest_server
from tests.test_cluster_flink_master import JOB, job
from tests.test_cluster_job_record import RECORD


def test_interrupt_whose_exception_got_lost(tmp_path: Path) -> None:
    """Python drops what is raised where a connection is closed that is let go of."""
    with rest_server() as server:
        server.answers["GET /jobs/overview"] = json_answer({"jobs": [job("backfill", 1)]})
        staging = staging_of(str(tmp_path), None)
        Path(staging.path).mkdir()
        staging.write_job(replace(RECORD, master=server.address, job_id=JOB).encode())
        timer = threading.Timer(0.3, cancel_all)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            run_attach(str(tmp_path))
        timer.join()

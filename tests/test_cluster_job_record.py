"""The record of a submitted job: what was written is read again, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.cluster.job_record import JobRecord
from candlebeam.errors import FormatError

RECORD = JobRecord(
    run="20240301T000000Z-1f",
    runner="FlinkRunner",
    master="host:8081",
    job_name="candlebeam-1f",
    job_id="3324917b1564a1d679960f04cf3f22c7",
    host="driver-1",
    pid=4711,
    started="2024-03-01T00:00:00+00:00",
    shards=12,
    bytes=34_000_000_000_000,
    markets=5,
    version="0.1.0",
)
NUMBERS = st.integers(0, 1 << 63)


def test_record_is_one_line_of_json() -> None:
    data = RECORD.encode()
    assert data.count(b"\n") == 1
    assert data.endswith(b"}\n")
    assert json.loads(data)["bytes"] == 34_000_000_000_000
    assert JobRecord.decode(data) == RECORD


@given(st.text(), NUMBERS, NUMBERS, st.sampled_from(["2024-03-01T00:00:00Z", RECORD.started]))
def test_what_was_written_is_read_again(text: str, number: int, size: int, started: str) -> None:
    record = JobRecord(
        *(text, text, text, text, text, text),
        pid=number,
        started=started,
        shards=number,
        bytes=size,
        markets=number,
        version=text,
    )
    assert JobRecord.decode(record.encode()) == record


def test_fields_of_later_versions_are_left_out() -> None:
    values = json.loads(RECORD.encode()) | {"later": [1]}
    assert JobRecord.decode(json.dumps(values).encode()) == RECORD


@pytest.mark.parametrize(
    "data", [b"", b"{", b"hello", b"\xff", b"[" * 100_000, RECORD.encode()[:-3]]
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(
        FormatError, match=r"^jobs/x: expected the record of a submitted job, found no JSON$"
    ):
        JobRecord.decode(data, "jobs/x")


@pytest.mark.parametrize("data", [b"[]", b"3", b"null"])
def test_json_that_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="found JSON that is no object"):
        JobRecord.decode(data)


@pytest.mark.parametrize("name", sorted(json.loads(RECORD.encode())))
def test_field_that_is_missing_is_named(name: str) -> None:
    values = json.loads(RECORD.encode())
    del values[name]
    with pytest.raises(FormatError, match=f"found no {name}$"):
        JobRecord.decode(json.dumps(values).encode())


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("run", 3, "text as run, found 3"),
        ("job_id", None, "text as job_id, found None"),
        ("pid", "4", "a number of 0 or more as pid, found '4'"),
        ("pid", True, "a number of 0 or more as pid, found True"),
        ("shards", -1, "a number of 0 or more as shards, found -1"),
        ("bytes", 1.5, "a number of 0 or more as bytes, found 1.5"),
        ("started", "yesterday", "a time in UTC as started, found 'yesterday'"),
        ("started", "2024-03-01T00:00:00", "a time in UTC as started, found"),
        ("started", "2024-03-01T00:00:00+01:00", "a time in UTC as started, found"),
    ],
)
def test_field_of_another_kind_is_named(name: str, value: Any, wanted: str) -> None:
    values = json.loads(RECORD.encode()) | {name: value}
    with pytest.raises(FormatError) as error:
        JobRecord.decode(json.dumps(values).encode())
    assert wanted in str(error.value)

"""Whether a Spark master takes connections, and what is told if none does."""

from __future__ import annotations

import socket

import pytest

from candlebeam.cluster.spark_master import check_spark_master
from candlebeam.errors import CandlebeamError, UsageError
from tests.loopback import free_port, silent_server


@pytest.mark.parametrize(
    "url",
    [
        "local",
        "local[4]",
        "local[*]",
        "local[*, 2]",
        "yarn",
        "k8s://https://host:443",
        "mesos://host:5050",
    ],
)
def test_what_is_no_standalone_cluster_is_not_asked(url: str) -> None:
    check_spark_master(url)


def test_master_that_takes_a_connection_passes() -> None:
    with silent_server() as port:
        check_spark_master(f"spark://127.0.0.1:{port}")
        check_spark_master(f"spark://127.0.0.1:{free_port()},127.0.0.1:{port}")


def test_master_that_refuses_is_told() -> None:
    place = f"127.0.0.1:{free_port()}"
    with pytest.raises(
        CandlebeamError,
        match=rf"no Spark master answers at spark://{place} \({place}: connection refused\): is",
    ):
        check_spark_master(f"spark://{place}")


def test_every_master_that_refuses_is_told() -> None:
    with pytest.raises(CandlebeamError, match=r"refused; 127\.0\.0\.1:\d+: connection refused\)"):
        check_spark_master(f"spark://127.0.0.1:{free_port()},127.0.0.1:{free_port()}")


def test_master_that_drops_what_is_sent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped(address: tuple[str, int], timeout: float) -> socket.socket:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", dropped)
    with pytest.raises(CandlebeamError, match=r"\(host:7077: no answer within 0\.2 s\)"):
        check_spark_master("spark://host:7077", seconds=0.2)


def test_unknown_host_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(address: tuple[str, int], timeout: float) -> socket.socket:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    with pytest.raises(CandlebeamError, match=r"\(host:7077: no such host\)"):
        check_spark_master("spark://host:7077")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:7077",
        "http://host:8080",
        "spark://",
        "spark://host",
        "spark://host:70777",
        "local[x]",
        "spark://host:7077/",
        "spark://a:1,b",
        "k8s://",
        "sparks://host:1",
    ],
)
def test_nonsense_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no Spark master"):
        check_spark_master(url)

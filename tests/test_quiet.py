"""Which errors of workers are not printed, as the user is told of them in a line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from apache_beam.runners.worker import data_plane, sdk_worker

from candlebeam.errors import CandlebeamError
from candlebeam.pipelines.quiet import is_told_otherwise


def raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as found:  # noqa: PT011  all kinds
        call()
    return found.value


class _RunnerThatGoes:
    """What a channel of Beam's talks to: it closes the connection when it is told to."""

    def __init__(self) -> None:
        self.goes = threading.Event()

    def Data(self, *_: object, **__: object) -> Iterator[Any]:  # noqa: N802  a name of Beam's
        self.goes.wait()
        yield from ()

    State = Data


def test_channel_that_was_closed() -> None:
    runner = _RunnerThatGoes()
    channel = data_plane.GrpcClientDataChannel(runner)
    reading = channel.input_elements("instruction", ["transform"])
    channel.close()
    runner.goes.set()
    error = raised(lambda: list(reading))
    assert "Channel closed" in str(error)
    assert is_told_otherwise(error)


def test_state_whose_runner_is_gone() -> None:
    runner = _RunnerThatGoes()
    runner.goes.set()
    state = sdk_worker.GrpcStateHandler(runner)
    state.done()
    with state.process_instruction_id("instruction"):
        error = raised(lambda: state.get_raw(None))
    assert is_told_otherwise(error)


def _worker(error: BaseException) -> Callable[[], None]:
    """A worker that fails, as Beam's do: the message of the error is made longer."""

    def fail() -> None:
        try:
            raise error
        except type(error) as found:
            raise RuntimeError(f"{found} [while running 'Read']") from found

    return fail


@pytest.mark.parametrize(
    "error",
    [CandlebeamError("a.csv.gz:1: no row"), OSError(28, "disk full"), grpc.RpcError("gone")],
)
def test_errors_that_are_told(error: Exception) -> None:
    assert is_told_otherwise(raised(_worker(error)))


def test_errors_of_programs_are_not() -> None:
    assert not is_told_otherwise(raised(_worker(ZeroDivisionError("division by zero"))))
    assert not is_told_otherwise(None)

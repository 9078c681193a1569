"""What every format promises: round trips, and that damage is told and never taken for data."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from candlebeam import formats
from tests.codecs import CODECS, Codec, Told

#: Places of damage that are tried in a file, spread over it.
PLACES = 400
MASKS = (0x01, 0x80, 0xFF)


@pytest.fixture(params=CODECS, ids=lambda codec: codec.name)
def codec(request: pytest.FixtureRequest) -> Codec:
    found: Codec = request.param
    return found


def places(size: int) -> list[int]:
    """Places in a file: all of a small one, else some everywhere, and all at its ends."""
    if size <= PLACES:
        return list(range(size))
    step = size / (PLACES - 100)
    spread = {int(n * step) for n in range(PLACES - 100)}
    return sorted(spread | set(range(50)) | set(range(size - 50, size)))


class Folders:
    """A folder of its own for each reading, as a file may still be mapped."""

    def __init__(self, root: Path) -> None:
        self._root, self._count = root, 0

    def __call__(self) -> Path:
        self._count += 1
        folder = self._root / str(self._count)
        folder.mkdir(parents=True)
        return folder


def read(codec: Codec, data: bytes, folder: Path, value: Any) -> tuple[bool, Any]:
    """Whether the bytes can be read, and what they are; or the error, if it is a clear one."""
    try:
        return True, codec.decode(data, folder, value)
    except codec.errors as error:
        if codec.named:
            assert str(folder) in str(error)  # noqa: PT017
        assert str(error)  # noqa: PT017
        return False, error


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_value_reads_back_and_equal_values_are_equal_bytes(
    codec: Codec, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    value = data.draw(codec.values)
    encoded = codec.encode(value)
    folder = tmp_path_factory.mktemp("codec")
    assert codec.decode(encoded, folder, value) == value
    assert codec.encode(pickle.loads(pickle.dumps(value))) == encoded  # noqa: S301


def test_every_class_that_is_encoded_and_decoded_is_here() -> None:
    found = set()
    for module in pkgutil.walk_packages(formats.__path__, "candlebeam.formats."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and hasattr(kind, "encode") and hasattr(kind, "decode"):
                found.add(kind)
    assert len(found) >= 7
    assert found <= {type(codec.sample) for codec in CODECS}


def test_sample_reads_back(codec: Codec, tmp_path: Path) -> None:
    assert codec.decode(codec.encode(codec.sample), tmp_path, codec.sample) == codec.sample


def test_cut_off_bytes_are_refused_or_a_part_that_is_documented(
    codec: Codec, tmp_path: Path
) -> None:
    folders, value = Folders(tmp_path), codec.sample
    encoded = codec.encode(value)
    for size in places(len(encoded)):
        whole, found = read(codec, encoded[:size], folders(), value)
        if whole:
            assert codec.cut(found, value), size
        elif isinstance(found, Told) and found.rows is not None:
            assert found.rows == value[: len(found.rows)], size


def test_bytes_behind_the_end_are_refused_or_passed_over(codec: Codec, tmp_path: Path) -> None:
    folders, value = Folders(tmp_path), codec.sample
    for more in (b"x", bytes(7), codec.encode(value)[:5]):
        whole, found = read(codec, codec.encode(value) + more, folders(), value)
        assert whole == codec.tail(more), more
        if whole:
            assert found == value


def damaged(data: bytes) -> Iterator[tuple[int, bytes]]:
    for place in places(len(data)):
        for mask in MASKS:
            changed = bytearray(data)
            changed[place] ^= mask
            yield place, bytes(changed)


@pytest.mark.parametrize(
    "codec", [codec for codec in CODECS if codec.flipped], ids=lambda codec: codec.name
)
def test_changed_bytes_never_end_in_anything_but_a_clear_error(
    codec: Codec, tmp_path: Path
) -> None:
    folders, value = Folders(tmp_path), codec.sample
    for place, data in damaged(codec.encode(value)):
        whole, found = read(codec, data, folders(), value)
        if codec.checked and whole:
            assert found == value, place


def foreign() -> Iterator[tuple[str, bytes]]:
    """Bytes that are none of a format's own, by what they are."""
    yield "nothing", b""
    yield "zeros", bytes(1_000)
    yield "random", Random(1).randbytes(1_000)
    yield "text", b"once upon a time\n" * 50
    yield "a number", b"5"
    yield "a list", b"[]"
    yield "an object", b"{}"
    yield "nested", b"[" * 100_000
    for other in CODECS:
        yield other.name, other.encode(other.sample)


def test_bytes_of_something_else_are_a_clear_error(codec: Codec, tmp_path: Path) -> None:
    folders, value = Folders(tmp_path), codec.sample
    own = codec.encode(value)
    taken = []
    for name, data in foreign():
        if data == own or name == codec.like:
            continue
        whole, found = read(codec, data, folders(), value)
        if whole:
            taken.append((name, found))
    if not codec.bare:
        assert taken == []

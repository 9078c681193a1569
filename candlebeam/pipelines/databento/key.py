"""Where the key to Databento's API comes from. It is never shown, whatever is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from candlebeam.errors import UsageError
from candlebeam.formats.env_file import env_value

KEY_NAME = "DATABENTO_API_KEY"
GATEWAY_NAME = "DATABENTO_GATEWAY"
_FILE_NAME = ".env"
_LONGEST_FILE = 1 << 20


def find_key(environment: Mapping[str, str], folder: str) -> str:
    """The key, from the environment or from `.env` in a folder; the environment counts first.

    Raises:
        UsageError: there is none, or none that can be sent.
        FormatError: `.env` has a line for it that cannot be read.
    """
    key, place = environment.get(KEY_NAME, "").strip(), "the environment"
    if not key:
        path = os.path.join(folder, _FILE_NAME)
        key, place = _from_file(path).strip(), path
    if not key:
        raise UsageError(
            f"no key: set {KEY_NAME} in the environment,"
            f" or in {_FILE_NAME} of the working folder as {KEY_NAME}=..."
        )
    if not (key.isascii() and key.isprintable()) or " " in key or ":" in key:
        raise UsageError(
            f"{KEY_NAME} of {place} is no key: expected letters, digits and dashes"
            f" (it is {len(key)} characters long and not shown)"
        )
    if key == "YOUR_API_KEY":
        raise UsageError(f"{KEY_NAME} of {place} is the placeholder of an example, no key")
    return key


def _from_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST_FILE)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageError(f"{path}: cannot be read for the key: {error.strerror}") from None
    return env_value(data, KEY_NAME, path) or ""

"""Asking a REST API of JSON objects, with little patience and plain words for what goes wrong."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from typing import Any

from candlebeam.cluster.connections import why_not
from candlebeam.errors import CandlebeamError

_PIECE = 1 << 16
_LARGEST = 64 << 20


class MasterError(CandlebeamError):
    """A master cannot be asked, or does not answer as one."""


class NoSuchThing(MasterError):
    """The API answers that it does not know what was asked for."""


class Rest:
    """A REST API.

    Args:
        url: where its paths begin, without a slash at the end.
        kind: what should be there, for messages: "Flink master".
        seconds: how long it may take until an answer is whole.
    """

    def __init__(self, url: str, kind: str, seconds: float) -> None:
        self._url = url
        self._kind = kind
        self._seconds = seconds
        # A cluster is spoken to directly: its own programs do not know the shell's proxy either.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> dict[str, Any]:
        """The object at a path.

        Raises:
            MasterError: no answer, or none that is a JSON object; `NoSuchThing`: a status 404.
        """
        found = self.get_any(path)
        if not isinstance(found, dict):
            raise self.not_this(path, "JSON that is no object")
        return found

    def get_any(self, path: str) -> Any:
        """The JSON at a path; raises what `get` raises."""
        body = self._ask("GET", path)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise self.not_this(path, "no JSON") from None

    def patch(self, path: str, *, accepted: Collection[int]) -> None:
        """A PATCH without a body; statuses of `accepted` are as good as 2xx.

        Raises:
            MasterError: no answer, or another status.
        """
        self._ask("PATCH", path, accepted)

    def not_this(self, path: str, found: str) -> MasterError:
        """The error of an answer that does not come from what should be there."""
        return MasterError(
            f"what answers at {self._url} is no {self._kind}: {path} gave {found}; "
            "is the port that of its REST API?"
        )

    def _ask(self, method: str, path: str, accepted: Collection[int] = ()) -> bytes:
        request = urllib.request.Request(self._url + path, method=method)
        request.add_header("Accept", "application/json")
        deadline = time.monotonic() + self._seconds
        try:
            with self._opener.open(request, timeout=self._seconds) as answer:
                return self._body(path, answer, deadline)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in accepted:
                    return b""
                raise self._refusal(path, error, deadline) from None
        except urllib.error.URLError as error:
            reason = error.reason if isinstance(error.reason, BaseException) else error
            raise self._unreachable(reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def _body(self, path: str, answer: Any, deadline: float) -> bytes:
        pieces = []
        size = 0
        while piece := answer.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if time.monotonic() > deadline:
                raise TimeoutError
            if size > _LARGEST:
                raise self.not_this(path, f"more than {_LARGEST >> 20} MiB")
        return b"".join(pieces)

    def _refusal(self, path: str, error: urllib.error.HTTPError, deadline: float) -> Exception:
        """The error of a status that is none of success."""
        body = b""
        with contextlib.suppress(OSError, http.client.HTTPException, MasterError):
            body = self._body(path, error, deadline)
        messages = _messages(body)
        if messages is None:
            return self.not_this(path, f"status {error.code}")
        kind = NoSuchThing if error.code == 404 else MasterError
        return kind(
            f"the {self._kind} at {self._url} answers {path} with status {error.code}"
            f"{': ' + messages if messages else ''}"
        )

    def _unreachable(self, error: BaseException) -> MasterError:
        return MasterError(
            f"no {self._kind} answers at {self._url}: {why_not(error, self._seconds)}; "
            "is the cluster started, is the port that of its REST API?"
        )


def _messages(body: bytes) -> str | None:
    """What an API says for an error: the first lines of its `errors`; None if it is not of ours."""
    try:
        errors = json.loads(body)["errors"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    if not isinstance(errors, list):
        return None
    lines = [str(e).strip().splitlines()[0] for e in errors if str(e).strip()]
    return "; ".join(lines)[:200]

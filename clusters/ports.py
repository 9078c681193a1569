"""Ports of the loopback, and what is asked there."""

from __future__ import annotations

import json
import socket
import urllib.request
from contextlib import ExitStack
from typing import Any


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different, chosen by the system."""
    with ExitStack() as held:
        found = []
        for _ in range(count):
            listener = held.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            found.append(int(listener.getsockname()[1]))
        return found


def listens(port: int) -> bool:
    """Whether somebody takes connections to a port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def get_json(url: str, timeout: float) -> dict[str, Any]:
    """What a server of this machine answers to a GET, whatever proxies there are.

    Raises:
        OSError: it does not answer in `timeout` seconds, or with an error.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout) as answer:
        found: dict[str, Any] = json.load(answer)
    return found

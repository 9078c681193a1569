"""`.env` files: names and values, one a line, as shells and their kin write them."""

from __future__ import annotations

import re

from candlebeam.errors import FormatError

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(?P<rest>.*)")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_ESCAPED = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def env_value(data: bytes, name: str, path: str) -> str | None:
    """The value of a name; None if no line sets it. The last line that sets it counts.

    `NAME=value`, with or without `export`. A value may be in single quotes, which take everything
    as it is, or in double quotes, which know `\\n` and its kin. Without quotes it ends before a
    comment, which begins with `#` at its beginning or behind a space. Other lines are nothing.

    Args:
        data: the whole file.
        path: names it in an error. No error repeats what the file holds.

    Raises:
        FormatError: the name's quotes are not closed, or are followed by something.

    >>> env_value(b'# mine\\nexport KEY="abc"  # the second\\n', "KEY", ".env")
    'abc'
    """
    found = None
    offset = 0
    for line in data.split(b"\n"):
        text = line.decode("utf-8-sig", errors="replace").rstrip("\r")
        match = _ASSIGNMENT.fullmatch(text)
        if match and match["name"] == name:
            found = _value(match["rest"], name, path, offset)
        offset += len(line) + 1
    return found


def _value(rest: str, name: str, path: str, offset: int) -> str:
    if rest[:1] == "'":
        value, closed, behind = rest[1:].partition("'")
    elif rest[:1] == '"':
        match = re.fullmatch(r'"((?:[^"\\]|\\.)*)"(.*)', rest)
        value, closed, behind = (match[1], '"', match[2]) if match else ("", "", "")
        value = _ESCAPED.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), value)
    else:
        return _COMMENT.sub("", rest).strip()
    if not closed:
        raise FormatError(path, f"the value of {name} to end with a quote", "none", offset)
    if _COMMENT.sub("", behind).strip():
        raise FormatError(
            path, f"nothing behind the quotes of {name}", "something, which is not shown", offset
        )
    return value

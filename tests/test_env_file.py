"""`.env` files."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlebeam.errors import FormatError
from candlebeam.formats.env_file import env_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("KEY=abc", "abc"),
        ("  KEY = abc  ", "abc"),
        ("export KEY=abc", "abc"),
        ("export\tKEY=abc # mine", "abc"),
        ("KEY=abc#1", "abc#1"),
        ("KEY=#1", ""),
        ("KEY=", ""),
        ("KEY='a b' # mine", "a b"),
        ("KEY='a\\n\"b'", 'a\\n"b'),
        ('KEY="a\\"b\\\\c\\n"', 'a"b\\c\n'),
        ('KEY="a # b"', "a # b"),
        ("KEY=a=b", "a=b"),
        ("KEY=one\nKEY=two", "two"),
        ("\ufeffKEY=abc\r\nOTHER=x\r\n", "abc"),
        ("# KEY=abc", None),
        ("MY_KEY=abc\nKEYS=abc\nKEY\nsome words", None),
        ("", None),
    ],
)
def test_value_of_a_name(text: str, value: str | None) -> None:
    assert env_value(text.encode(), "KEY", ".env") == value


PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20)


@given(PLAIN, PLAIN)
def test_a_value_that_a_shell_quotes_reads_back(value: str, other: str) -> None:
    if "'" in value:
        return
    lines = f"OTHER={other}\nKEY='{value}'\nLAST={other}\n"
    assert env_value(lines.encode(), "KEY", ".env") == value
    if shlex.split(f"'{value}'", posix=True) != [value]:
        raise AssertionError("a shell reads it otherwise")


def test_bytes_that_are_no_text_hide_nothing_else() -> None:
    assert env_value(b"A=\xff\xfe\nKEY=abc\n", "KEY", ".env") == "abc"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("KEY='abc", "expected the value of KEY to end with a quote, found none"),
        ('KEY="abc\\"', "expected the value of KEY to end with a quote, found none"),
        ("KEY='abc'def", "expected nothing behind the quotes of KEY, found something"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_and_not_shown(line: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        env_value(f"A=1\n{line}\n".encode(), "KEY", "my/.env")
    assert str(caught.value).startswith("my/.env at byte 4: ")
    assert "abc" not in str(caught.value)
    assert "def" not in str(caught.value)

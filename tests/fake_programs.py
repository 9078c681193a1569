"""Programs of a few lines that stand in for Java and Maven."""

from __future__ import annotations

import sys
from pathlib import Path


def shell_program(path: Path, text: str) -> Path:
    """A program that is a shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def python_program(path: Path, text: str) -> Path:
    """A program that is a Python script, with the standard library alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".py")
    source.write_text(text, encoding="utf-8")
    return shell_program(path, f'exec "{sys.executable}" -I -S "{source}" "$@"')

"""What the jobs of the worker tests do, in a module that workers can import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam


class Tell(beam.DoFn):
    """Prints a lot, and gives what a worker knows as JSON."""

    def process(self, size: int) -> Iterator[str]:
        from apache_beam.io.filesystems import FileSystems

        print("o" * size)
        print("e" * size, file=sys.stderr)
        options = FileSystems._pipeline_options.get_all_options()
        yield json.dumps(
            {
                "executable": sys.executable,
                "endpoint": options["s3_endpoint_url"],
                "parallelism": options["parallelism"],
                "environment": json.loads(os.environ["PIPELINE_OPTIONS"]),
            }
        )


class Stay(beam.DoFn):
    """Prints 2 MB, starts a process, writes both process ids to a file, and does not end."""

    def process(self, path: str) -> Iterator[str]:
        print("x" * 2_000_000)
        child = subprocess.Popen(["sleep", "1000"])
        unfinished = Path(f"{path}.tmp")
        unfinished.write_text(f"{os.getpid()} {child.pid}")
        unfinished.rename(path)
        time.sleep(1000)
        yield path

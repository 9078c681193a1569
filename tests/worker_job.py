"""A job on workers: `python -m tests.worker_job tell|stay FILE BEAM_OPTION...`."""

from __future__ import annotations

import sys

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from tests.worker_dofns import Stay, Tell

#: Bytes on either stream: far more than a pipe holds.
SIZE = 1_000_000


def main() -> None:
    kind, path, *options = sys.argv[1:]
    with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
        if kind == "tell":
            told = pipeline | beam.Create([SIZE]) | beam.ParDo(Tell())
            _ = told | beam.io.WriteToText(path, shard_name_template="")
        else:
            _ = pipeline | beam.Create([path]) | beam.ParDo(Stay())


if __name__ == "__main__":
    main()

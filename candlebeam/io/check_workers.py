"""Whether workers have this package, and of the version that the plan is from."""

from __future__ import annotations

import apache_beam as beam
from apache_beam import pvalue

from candlebeam.version import __version__


class CheckWorkers(beam.PTransform):
    """Fails with a clear error where a worker lacks the package or has another version of it.

    In and out: a PCollection of `str`, the same.

    It is a stage of its own: a worker that cannot load a stage leaves some runners waiting for it
    for minutes, and all stages but this one need the package to be loaded. What ends it is no
    Reshuffle: of two in a row Flink leaves out the second, as if the elements that were made
    between them were spread already, and one worker would get all of them.

    Args:
        elsewhere: whether workers are processes that this one has not started. If not, nothing is
            done.
        streaming: whether there is no end of elements. Then who uses them has to see to it that
            another stage begins: by a state, say.
    """

    def __init__(self, *, elsewhere: bool, streaming: bool = False) -> None:
        super().__init__()
        self._elsewhere, self._streaming = elsewhere, streaming

    def expand(self, elements: pvalue.PCollection) -> pvalue.PCollection:
        if not self._elsewhere:
            return elements
        checked = elements | "SameVersion" >> beam.Map(_checked, __version__).with_output_types(
            tuple[str, str]
        )
        if not self._streaming:
            checked |= "InAStageOfItsOwn" >> beam.GroupByKey()
        return checked | "Elements" >> beam.Keys().with_output_types(str)


def _checked(element: str, version: str) -> tuple[str, str]:
    from candlebeam.version import __version__ as found

    if found != version:
        raise RuntimeError(
            f"a worker has candlebeam {found}, the driver {version}: install the same on both"
        )
    return element, ""


# So the function itself is sent to workers, not where it is to be found.
_checked.__module__ = "__main__"

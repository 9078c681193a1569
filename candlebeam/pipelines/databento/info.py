"""What Databento has, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from candlebeam.pipelines.databento.client import Client
from candlebeam.pipelines.databento.failures import ApiError
from candlebeam.pipelines.wording import counted
from candlebeam.rules.months import time_text

#: What a dataset is, by the first part of its code, for those that are known here.
_KINDS = {
    code: kind
    for kind, codes in {
        "equities": "ARCX BATS BATY DBEQ EDGA EDGX EPRL EQUS FINN FINY IEXG MEMX OCEA XASE XBOS"
        " XCHI XCIS XNAS XNYS XPSX XTKS XTKT",
        "futures": "GLBX IFEU IFLL IFUS NDEX XCBF XEEE XEUR XOSE",
        "options": "OPRA",
        "indices": "CCCY CGI DBIX FTSE MAIN MSCI MSTAR",
    }.items()
    for code in codes.split()
}
_NOTHING = "-"


def ping(client: Client) -> str:
    """A line that says that the key works; raises `ApiError` if it does not."""
    return f"the key works: {counted(len(client.datasets()), 'dataset')}"


def list_datasets(client: Client) -> Iterator[str]:
    """The lines of a table of all datasets, with what this key may have of each."""
    rows = []
    for dataset in sorted(client.datasets()):
        try:
            span = client.available(dataset).span
            times = (time_text(span.start), time_text(span.end))
        except ApiError as error:
            if error.hits_everything:
                raise
            times = (_NOTHING, str(error))
        rows.append((dataset, kind_of(dataset), *times))
    yield from table(("dataset", "what", "from", "before"), rows)


def list_schemas(client: Client, dataset: str) -> Iterator[str]:
    """The lines of a table of a dataset's schemas."""
    schemas = client.schemas(dataset)
    available = client.available(dataset)
    prices = client.unit_prices(dataset)
    rows = []
    for schema in schemas:
        span = available.of(schema)
        price = f"{prices[schema]:.2f}" if schema in prices else _NOTHING
        rows.append((schema, time_text(span.start), time_text(span.end), price))
    yield from table(("schema", "from", "before", "USD/GB"), rows)


def kind_of(dataset: str) -> str:
    """One word for what a dataset is.

    >>> kind_of("GLBX.MDP3"), kind_of("NEWX.NEW")
    ('futures', '-')
    """
    return _KINDS.get(dataset.partition(".")[0], _NOTHING)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of columns that are as wide as they need to be.

    >>> print("\\n".join(table(("a", "b"), [("long", "1"), ("x", "2")])))
    a     b
    long  1
    x     2
    """
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(cells).rstrip()

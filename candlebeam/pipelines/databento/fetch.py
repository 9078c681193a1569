"""Downloads from Databento, file by file."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from candlebeam.errors import CandlebeamError
from candlebeam.formats.dbn.csv_text import is_bars, write_csv
from candlebeam.formats.dbn.whole import check_dbn
from candlebeam.formats.fetched_file import Fetched
from candlebeam.pipelines.databento.client import Client, Query
from candlebeam.pipelines.databento.failures import ApiError
from candlebeam.pipelines.databento.files import (
    UNFINISHED,
    MonthFile,
    commit,
    fetched_of,
    stored,
    write_note,
)
from candlebeam.pipelines.databento.plan import FetchRequest, Plan, Planned
from candlebeam.pipelines.lock import output_lock
from candlebeam.pipelines.wording import counted
from candlebeam.rules.contracts import names_several
from candlebeam.rules.months import Span
from candlebeam.storage.durable import cannot_write, remove, sync_folder

#: The API's record counts hold for ranges of whole ten minutes, in ns.
_COUNTED = 600_000_000_000
_NOT_COUNTED = ("definition",)
#: What is wrong with a disk, not with one file on it.
_HITS_EVERYTHING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class _ShortOfRecords(CandlebeamError):
    """A download is whole, but has fewer records than the API counts."""


@dataclass
class FetchReport:
    """What became of a plan.

    Attributes:
        fetched: what was downloaded.
        csv_files: CSV files that were written.
        failed: what did not come, and why, in sentences; with that of the plan.
        notes: what the user should know, in sentences.
    """

    fetched: list[Fetched] = field(default_factory=list)
    csv_files: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def summary(self, plan: Plan) -> str:
        """What became of the plan, in one line."""
        records = sum(each.records for each in self.fetched)
        size = sum(each.size for each in self.fetched)
        parts = [f"{counted(len(self.fetched), 'file')} fetched"]
        if self.fetched:
            parts[0] += f" ({counted(records, 'record')}, {counted(size, 'byte')})"
        if self.csv_files:
            parts.append(f"{counted(len(self.csv_files), 'CSV file')} written")
        if plan.here:
            parts.append(f"{len(plan.here):,} already here")
        if plan.unlisted:
            parts.append(f"{counted(len(plan.unlisted), 'month')} without the symbol")
        if self.failed:
            parts.append(f"{len(self.failed):,} failed")
        return ", ".join(parts)


def fetch_planned(
    client: Client, request: FetchRequest, plan: Plan, tell: Callable[[str], None]
) -> FetchReport:
    """Downloads what a plan has, and writes the CSV files that are wanted.

    Each file is there whole or not at all, whenever this ends. What fails is named in the report;
    the rest goes on, unless it would fail the same way.

    Args:
        tell: is called with a line for each file.

    Raises:
        CandlebeamError: another run is downloading the same schema to the same folder.
    """
    report = FetchReport(failed=list(plan.failed))
    if not plan.fetch and not (request.csv and plan.here):
        return report
    folder = os.path.dirname((plan.here or [plan.fetch[0].file])[0].folder)
    _make_folder(folder)
    with output_lock(folder, "databento fetch"):
        for folder in {planned.file.folder for planned in plan.fetch}:
            _clear(folder)
        for done, planned in enumerate(plan.fetch):
            with _noted(report, planned.file) as attempt:
                _fetch(client, request, planned, report, tell)
            if attempt.hopeless:
                rest = len(plan.fetch) - done - 1
                if rest:
                    report.failed.append(f"{counted(rest, 'file')} not tried any more")
                break
        else:
            for file in plan.here if request.csv else ():
                with _noted(report, file):
                    known = stored(file).fetched
                    if known is not None:
                        _write_csv(file, known, report)
    return report


@dataclass
class _Attempt:
    """Whether something failed in a way that others will, too."""

    hopeless: bool = False


@contextlib.contextmanager
def _noted(report: FetchReport, file: MonthFile) -> Iterator[_Attempt]:
    """An error in it is one failure of the report."""
    attempt = _Attempt()
    try:
        yield attempt
    except ApiError as error:
        attempt.hopeless = error.hits_everything
        report.failed.append(str(error))
    except CandlebeamError as error:
        report.failed.append(f"{file}: {error}")
    except OSError as error:
        attempt.hopeless = error.errno in _HITS_EVERYTHING
        report.failed.append(f"{file}: {cannot_write(error, file.data)}")


def _clear(folder: str) -> None:
    """Removes what runs that were killed have left."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            if name.startswith(".") and name.endswith(UNFINISHED):
                remove(os.path.join(folder, name))


def _fetch(
    client: Client,
    request: FetchRequest,
    planned: Planned,
    report: FetchReport,
    tell: Callable[[str], None],
) -> None:
    file = planned.file
    begin = time.monotonic()
    _make_folder(file.folder)
    found = stored(file).fetched
    if found is not None and found.span.covers(planned.span):
        fetched = found  # another run was faster
    else:
        fetched = _download(client, request, planned)
        report.fetched.append(fetched)
        seconds = time.monotonic() - begin
        size = f"{counted(fetched.records, 'record')}, {counted(fetched.size, 'byte')}"
        tell(f"{file}: {size} in {seconds:.1f} s")
    if request.csv:
        _write_csv(file, fetched, report)


def _download(client: Client, request: FetchRequest, planned: Planned) -> Fetched:
    file, query = planned.file, planned.file.query(planned.span)
    expected = _expected_records(client, query) if request.count else None
    path = file.unfinished(file.data)
    try:
        fetched = client.download(query, path, lambda: _whole(file, path, planned.span))
        if expected is not None and fetched.records < expected:
            os.replace(path, file.short)
            raise _ShortOfRecords(
                f"expected {counted(expected, 'record')}, as the API counts them, found"
                f" {fetched.records:,} in a download that is whole; with --no-count it is taken"
            )
        commit(file, path, fetched)
    finally:
        remove(path)
    return fetched


def _whole(file: MonthFile, path: str, span: Span) -> Fetched:
    """What a finished download is; an error if it is not all there, or something else."""
    contents = check_dbn(path)
    if (contents.dataset, contents.schema) != (file.dataset, file.schema):
        raise CandlebeamError(
            f"expected a download of {file.dataset} {file.schema},"
            f" found {contents.dataset} {contents.schema}"
        )
    return fetched_of(file, path, contents, span)


def _expected_records(client: Client, query: Query) -> int | None:
    """How many records there are, where the API can tell."""
    if query.schema in _NOT_COUNTED or any(time % _COUNTED for time in query.span):
        return None
    try:
        return client.record_count(query)
    except ApiError as error:
        if error.status is None or error.status >= 500 or error.hits_everything:
            raise
        return None


def _write_csv(file: MonthFile, fetched: Fetched, report: FetchReport) -> None:
    """Makes the CSV file of a file that is there, unless it has been made already."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.getsize(file.csv) == fetched.csv_size:
            return
    bars = is_bars(fetched.schema) and not names_several(fetched.symbol, fetched.stype_in)
    path = file.unfinished(file.csv)
    try:
        with open(path, "wb") as target:
            unordered = write_csv(file.data, target, bars=bars)
            target.flush()
            os.fsync(target.fileno())
            size = target.tell()
        os.replace(path, file.csv)
    finally:
        remove(path)
    sync_folder(file.folder)
    write_note(file, fetched.with_csv(size))
    report.csv_files.append(file.csv)
    if unordered:
        report.notes.append(
            f"{file.csv}: {counted(unordered, 'bar')} not after the one before:"
            " of several publishers, or several instruments"
        )


def _make_folder(path: str) -> None:
    """Makes a folder, with those above it; their names are on disk, come a power cut."""
    parent = os.path.dirname(path)
    if os.path.isdir(path):
        return
    if parent and parent != path:
        _make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    sync_folder(parent)

"""What checking files came to, and the report of it: as text, and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from candlebeam.errors import UsageError
from candlebeam.pipelines.wording import counted
from candlebeam.rules.checks import ERROR, INFORMATION, SEVERITIES, WARNING, Finding, format_ts
from candlebeam.storage.durable import write_atomic

#: What stands above, between and below the parts of the text.
RULE = "=" * 60

_LABELS = {ERROR: "ERROR", WARNING: "WARNING", INFORMATION: "INFO"}
_INDENT = " " * 11


@dataclass
class Validation:
    """What checking one file came to, or one instrument of a file with several.

    Attributes:
        path: the file.
        kind: what it is, in words.
        name: whose bars they are: a market, or a symbol; "" if that is not known.
        timeframe: of its bars, such as "1m"; "trades" for these; "" if that is not known.
        bars, priced: how many it has, and how many of these have prices.
        first_ts, last_ts: the starts of the first and the last of them, in ms; None without any.
        source: what its volume was held against.
        checks: the names of the checks that were made, in order.
        findings: what they found, in that order.
    """

    path: str
    kind: str
    name: str = ""
    timeframe: str = ""
    bars: int = 0
    priced: int = 0
    first_ts: int | None = None
    last_ts: int | None = None
    source: str | None = None
    checks: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, checks: Iterable[str], findings: Iterable[Finding]) -> None:
        """Adds checks that were made, and what they found."""
        self.checks += [check for check in checks if check not in self.checks]
        self.findings += findings

    def count(self, severity: str) -> int:
        """How often something of a severity was found."""
        return sum(each.count for each in self.findings if each.severity == severity)

    def has(self, *severities: str) -> bool:
        """Whether anything of these severities was found."""
        return any(each.severity in severities for each in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "findings": [each.to_json() for each in self.findings]}

    def lines(self) -> Iterator[str]:
        """The block of the text report."""
        yield self.path
        whose = " ".join(filter(None, (self.name, self.timeframe)))
        yield f"{self.kind}: {whose}" if whose else self.kind
        yield self._range()
        if self.source is not None:
            yield f"source: {self.source}"
        yield ""
        for check in self.checks:
            found = [each for each in self.findings if each.check == check]
            if not found:
                yield f"  {'PASS':<8} {check}"
            for each in found:
                yield f"  {_LABELS[each.severity]:<8} {check:<21} {each.count:>9,}  {each.message}"
                yield from _place_lines(each)

    def _range(self) -> str:
        bars = counted(self.bars, "trade" if self.timeframe == "trades" else "bar")
        if self.first_ts is None or self.last_ts is None:
            return bars
        gaps = self.bars - self.priced
        without = f" ({gaps:,} without trades)" if gaps else ""
        return f"{bars}{without}, {format_ts(self.first_ts)} to {format_ts(self.last_ts)} UTC"


def _place_lines(finding: Finding) -> Iterator[str]:
    for place in finding.places:
        where = []
        if place.place is not None:
            where.append(f"bar {place.place}")
        if place.ts is not None:
            where.append(format_ts(place.ts))
        at = f"{', '.join(where)}: " if where else ""
        yield f"{_INDENT}{at}expected {place.expected}, found {place.found}"
    more = finding.count - len(finding.places)
    if finding.places and more > 0 and finding.check != "gaps":
        yield f"{_INDENT}and {more:,} more"


@dataclass
class ValidationReport:
    """The whole of it.

    Attributes:
        validations: one a file or instrument, in order.
        passed_over: files in the folders that are no bars.
        seconds: wall time.
    """

    validations: list[Validation] = field(default_factory=list)
    passed_over: int = 0
    seconds: float = 0.0

    def total(self, severity: str) -> int:
        """How often something of a severity was found, in all files."""
        return sum(each.count(severity) for each in self.validations)

    @property
    def failed(self) -> int:
        """How many have errors."""
        return sum(each.has(ERROR) for each in self.validations)

    @property
    def failure(self) -> str:
        """That there are errors, in a sentence."""
        files = counted(len(self.validations), "file")
        return f"{counted(self.total(ERROR), 'error')}: {self.failed:,} of {files} failed"

    @property
    def exit_code(self) -> int:
        """1 if there is an error, else 0."""
        return 1 if self.failed else 0

    def to_json(self) -> dict[str, Any]:
        """The whole of it as plain JSON values."""
        return {
            "files": [each.to_json() for each in self.validations],
            "totals": {
                "files": len(self.validations),
                "files_with_errors": self.failed,
                **{f"{severity}s": self.total(severity) for severity in SEVERITIES[:2]},
                INFORMATION: self.total(INFORMATION),
                "bars": sum(each.bars for each in self.validations),
                "passed_over": self.passed_over,
            },
            "seconds": round(self.seconds, 3),
        }

    def lines(self, *, quiet: bool = False) -> Iterator[str]:
        """The text report.

        Args:
            quiet: leaves out files without errors and warnings.
        """
        yield from (RULE, "VALIDATION REPORT", RULE)
        for each in self.validations:
            if not quiet or each.has(ERROR, WARNING):
                # A name that is no text can stand in no report.
                for line in each.lines():
                    yield line.encode("utf-8", "backslashreplace").decode()
                yield RULE
        yield from self.summary_lines()
        yield RULE

    def summary_lines(self) -> Iterator[str]:
        """The end of the report."""
        well = sum(not each.has(ERROR, WARNING) for each in self.validations)
        warned = len(self.validations) - well - self.failed
        bars = sum(each.bars for each in self.validations)
        yield "SUMMARY"
        yield f"checked: {counted(len(self.validations), 'file')}, {counted(bars, 'bar')}"
        yield f"files: {well:,} well, {warned:,} with warnings only, {self.failed:,} with errors"
        errors = counted(self.total(ERROR), "error")
        warnings = counted(self.total(WARNING), "warning")
        yield f"findings: {errors}, {warnings}, {self.total(INFORMATION):,} information"
        if self.passed_over:
            yield f"passed over, as no bars: {counted(self.passed_over, 'file')}"
        yield "FAILED" if self.failed else "PASSED"

    def write(self, path: str) -> None:
        """Writes the text and the JSON; see `report_paths`."""
        text_path, json_path = report_paths(path)
        text = "".join(f"{line}\n" for line in self.lines())
        write_atomic(text_path, text.encode(), durable=False)
        data = (json.dumps(self.to_json(), indent=2) + "\n").encode()
        write_atomic(json_path, data, durable=False)


def report_paths(path: str) -> tuple[str, str]:
    """Where the text and the JSON of a report go: one at `path`, the other beside it.

    >>> report_paths("/r/report.txt"), report_paths("/r/report.json")
    (('/r/report.txt', '/r/report.json'), ('/r/report.txt', '/r/report.json'))

    Raises:
        UsageError: there are candles of that name, whose companion the JSON would replace.
    """
    path = os.path.abspath(path)
    stem, suffix = os.path.splitext(path)
    if os.path.exists(f"{stem}.bin"):
        raise UsageError(f"--report {path}: {stem}.json belongs to {stem}.bin")
    return (f"{stem}.txt" if suffix == ".json" else path), f"{stem}.json"

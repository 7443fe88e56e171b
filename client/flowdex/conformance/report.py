"""A report as people and programs read it: a table with what failed below it, JUnit XML.

Report --table, left_out, failures, verdict--> lines for the terminal        Report --junit--> a file for CI
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree  # nosec B405 # writes XML, reads none

from flowdex.conformance.model import Outcome, Report
from flowdex.results import counted

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "skipped")

__all__ = ["failures", "junit", "left_out", "table", "verdict"]


def table(report: Report) -> Table:
    """A row a contract: cases, passed, failed, skipped."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    found.add_column("contract", no_wrap=True)
    for title in ("cases", "passed", "failed", "skipped"):
        found.add_column(title, justify="right")
    found.add_column("", no_wrap=True)
    for each in report.contracts:
        if each.absent is not None:
            style = "red" if each.name in report.required else "dim"
            found.add_row(Text(each.name, style), "", "", "", "", Text("absent", style))
            continue
        passed, failed, skipped = (len(each.of(outcome)) for outcome in _OUTCOMES)
        found.add_row(
            Text(each.name, "red" if failed else "green"),
            str(len(each.results)),
            str(passed),
            Text(str(failed), "red" if failed else ""),
            Text(str(skipped), "yellow" if skipped else ""),
            Text(each.title, "dim"),
        )
    return found


def left_out(report: Report) -> Iterator[Text]:
    """A line for each contract that is absent, and for each case that could not be run, with the reason."""
    from rich.text import Text

    for contract in report.contracts:
        if contract.absent is not None:
            yield Text(f"{contract.name} is absent: {contract.absent}", "dim")
        for result in contract.of("skipped"):
            yield Text(f"{contract.name}: {result.name} was skipped: {result.skipped}", "yellow")


def failures(report: Report) -> Iterator[Text]:
    """For each case that failed: its name, the rule, and what was expected and came."""
    from rich.text import Text

    for contract in report.contracts:
        for result in contract.of("failed"):
            yield Text()
            yield Text.assemble((f"{contract.name}: {result.name}", "bold red"))
            yield Text(f"  rule      {result.rule}")
            for problem in result.problems:
                yield Text(f"  at        {problem.where}")
                if problem.expected:
                    yield Text(f"  expected  {problem.expected}")
                yield Text(f"  got       {problem.got}")


def verdict(report: Report) -> str:
    """The outcome in one line."""
    offered = [each for each in report.contracts if each.absent is None]
    passed, failed, skipped = (sum(len(each.of(outcome)) for each in offered) for outcome in _OUTCOMES)
    missing = [each.name for each in report.contracts if each.absent is not None and each.name in report.required]
    if not report.complete:
        return f"Interrupted after {counted(passed + failed, 'case')}, {failed} failed."
    if missing:
        return f"{report.server} does not offer {', '.join(missing)}."
    if not offered:
        return f"{report.server} offers none of these contracts."
    if failed:
        return f"{failed} of {counted(passed + failed, 'case')} failed."
    more = f", {skipped} skipped" if skipped else ""
    return f"{counted(passed, 'case')} of {counted(len(offered), 'contract')} passed{more}."


def junit(report: Report) -> bytes:
    """The report as JUnit XML: a suite a contract; an absent one is skipped, or an error where it was required."""
    root = ElementTree.Element("testsuites", name=_xml(f"flowdex conformance {report.server}"))
    for contract in report.contracts:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(contract.name),
            tests=str(max(1, len(contract.results)) if contract.absent is not None else len(contract.results)),
            failures=str(len(contract.of("failed"))),
            errors=str(int(contract.absent is not None and contract.name in report.required)),
            skipped=str(
                len(contract.of("skipped")) + int(contract.absent is not None and contract.name not in report.required)
            ),
            time=f"{sum(result.seconds for result in contract.results):.3f}",
        )
        if contract.absent is not None:
            case = ElementTree.SubElement(suite, "testcase", classname=_xml(contract.name), name="offered", time="0")
            kind = "error" if contract.name in report.required else "skipped"
            ElementTree.SubElement(case, kind, message=_xml(contract.absent))
        for result in contract.results:
            case = ElementTree.SubElement(
                suite,
                "testcase",
                classname=_xml(contract.name),
                name=_xml(result.name),
                time=f"{result.seconds:.3f}",
            )
            if result.skipped is not None:
                ElementTree.SubElement(case, "skipped", message=_xml(result.skipped))
            if result.problems:
                failure = ElementTree.SubElement(case, "failure", message=_xml(result.rule))
                failure.text = _xml(
                    "\n".join(f"{each.where}: expected {each.expected}, got {each.got}" for each in result.problems)
                )
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _xml(text: str) -> str:
    """The text without what XML cannot hold."""
    return "".join(each if each.isprintable() or each == "\n" else "�" for each in text)

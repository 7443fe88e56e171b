"""A plan as a table: quantity, number, reason."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from flowdex_orchestrator.capacity.plan import Demand, Line, Plan

__all__ = ["print_plan", "shown"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def shown(value: float, unit: str) -> str:
    """A number with its unit, as a reader wants it: 1.5 GiB, 12.3 ms, 1,234."""
    if unit == "bytes":
        power = 0
        while value >= 1024 and power < len(_UNITS) - 1:
            value /= 1024
            power += 1
        return f"{value:,.1f} {_UNITS[power]}" if power else f"{value:,.0f} B"
    if not unit:
        return f"{value:,.0f}"
    return f"{value:,.1f} {unit}"


def print_plan(plan: Plan, demand: Demand) -> None:
    """Write a plan to standard output."""
    console = Console(soft_wrap=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, style="bold")
    table.add_column(style="dim", overflow="fold")
    section = ""
    for line in plan.lines:
        if line.section != section:
            if section:
                table.add_row()
            section = line.section
            table.add_row(f"[bold]{section}[/bold]")
        _add(table, line)
    table.add_row()
    table.add_row("[bold]Together, while it serves[/bold]")
    totals = plan.totals
    room = f"{demand.headroom:.0%} free"
    table.add_row("  cores", shown(totals.cores, "cores"), room)
    table.add_row("  memory", shown(totals.memory, "bytes"), "")
    table.add_row("  disk", shown(totals.disk, "bytes"), "")
    node = f"of {demand.node_cpus:g} cores and {shown(demand.node_memory, 'bytes')}, {room}"
    table.add_row("  nodes", shown(totals.nodes, ""), node)
    if totals.gpus:
        table.add_row("  GPUs", shown(totals.gpus, ""), "")
    console.print(table)
    for warning in plan.warnings:
        console.print(f"\n[yellow]![/yellow] {warning.problem}\n  -> ", end="", highlight=False)
        console.print(warning.remedy, markup=False, highlight=False)
    console.print()
    for source in plan.sources:
        console.print(f"Costs of {source}", style="dim", markup=False, highlight=False)


def _add(table: Table, line: Line) -> None:
    table.add_row(f"  {line.label}", shown(line.value, line.unit), line.reason)

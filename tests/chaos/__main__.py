"""`python -m chaos`: run the faults, print the table, and write it into the page if asked."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import shlex
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from chaos import clients, clock, disk, documents, processes, remote, replicas  # noqa: F401 - they register themselves
from chaos.faults import FAULTS, Row, Setting, Skipped
from chaos.load import Tally
from chaos.table import page, table


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="how often each harm is done, at most")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="this fault; several times for several")
    parser.add_argument("--write", type=Path, help="a page of Markdown whose table is written anew")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which `kill` begins no further round")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance")
    parser.add_argument("--keep", type=Path, help="a file of results: those that are there already are not made again")
    parser.add_argument("--verbose", action="store_true", help="say what happens when")
    parser.add_argument("--add", action="store_true", help="make them again, and add to those results")
    options = parser.parse_args()
    if options.verbose:
        logging.basicConfig(format="%(asctime)s %(message)s")
        logging.getLogger("chaos").setLevel(logging.INFO)
    names = options.only or list(FAULTS)
    known = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
    skipped: list[str] = []
    failed = False
    for name in names:
        if name in known and not options.add:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            setting = Setting(
                Path(folder) / name, min(options.rounds, FAULTS[name].most), options.seed, options.seconds
            )
            try:
                rows = asyncio.run(FAULTS[name].run(setting))
            except Skipped as reason:
                skipped.append(f"{name} ({reason})")
                continue
            except Exception:  # the other faults are made all the same
                failed = True
                traceback.print_exc()
                continue
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        for row in rows:
            try:
                row.tally.check()
            except AssertionError as error:
                failed = True
                print(f"{row.name}: {error}", file=sys.stderr)
            for kind, message in row.tally.said.items():
                print(f"  {row.name}: {kind}: {message}", file=sys.stderr)
        for row, former in zip(rows, known.get(name, ()), strict=name in known):
            row.add(_row(former))
        known[name] = [asdict(row) for row in rows]
        if options.keep:
            options.keep.write_text(json.dumps(known))
    rows = [_row(each) for name in FAULTS if name in known for each in known[name]]
    print(table(rows))
    if options.write:
        command = f"python -m chaos {shlex.join(_without_paths(sys.argv[1:]))}".strip()
        options.write.write_text(page(options.write.read_text(), rows, skipped, command))
    return int(failed)


def _row(values: dict) -> Row:  # type: ignore[type-arg]
    return Row(**{**values, "tally": Tally(**values["tally"])})


def _without_paths(arguments: list[str]) -> list[str]:
    """What decides about the result: the rounds."""
    return [each for number, each in enumerate(arguments) if "--rounds" in (each, arguments[number - 1])]


if __name__ == "__main__":
    sys.exit(main())

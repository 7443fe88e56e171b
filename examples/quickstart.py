"""The main job from start to end: start flow.yml, index real text, search it, stop. `make demo` runs this.

    flowdex up --detach -> stdlib_docs.py -> flowdex index -> flowdex search (three times) -> flowdex down

Every step is a command that a person could type; each is shown before it runs.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FLOWDEX = [sys.executable, "-m", "flowdex"]
QUERIES = (
    "how do I copy a whole directory tree",
    "parse a date and time from a string",
    "run a function every few seconds in another thread",
)


def run(*arguments: str) -> None:
    """Show a flowdex command and run it; a failing one ends the script with its exit code."""
    print(f"\n$ flowdex {shlex.join(arguments)}", flush=True)
    code = subprocess.run([*FLOWDEX, *arguments], cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(code)


def main() -> None:
    """Run all steps; the flow is stopped also when one fails."""
    with tempfile.TemporaryDirectory() as folder:
        documents = Path(folder) / "stdlib.jsonl"
        print(f"$ python examples/stdlib_docs.py -o {documents}", flush=True)
        subprocess.run([sys.executable, str(HERE / "stdlib_docs.py"), "-o", str(documents)], check=True)
        try:
            run("up", "--detach")
            run("index", str(documents))
            for query in QUERIES:
                run("search", query, "-n", "3")
        finally:
            run("down")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None

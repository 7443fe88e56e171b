"""All of bertsearch with one command: python examples/bertsearch/run.py, then http://127.0.0.1:5000.

    flowdex up --detach -> create_index.py -> create_documents.py -> index_documents.py -> app.py -> flowdex down

Options are handed on to app.py; Ctrl-C ends it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLOW = str(HERE / "flow.yml")
FLOWDEX = [sys.executable, "-m", "flowdex"]


def main() -> int:
    """Run all steps; the flow is stopped also when one fails."""
    scripts = ("create_index.py", "create_documents.py", "index_documents.py")
    try:
        subprocess.run([*FLOWDEX, "up", FLOW, "--detach"], check=True)
        for script in scripts:
            subprocess.run([sys.executable, str(HERE / script)], check=True)
        print("the page is at http://127.0.0.1:5000; Ctrl-C stops it", flush=True)
        return subprocess.run([sys.executable, str(HERE / "app.py"), *sys.argv[1:]], check=False).returncode
    except subprocess.CalledProcessError as error:
        return error.returncode
    except KeyboardInterrupt:
        return 0
    finally:
        subprocess.run([*FLOWDEX, "down", FLOW], check=False)


if __name__ == "__main__":
    raise SystemExit(main())

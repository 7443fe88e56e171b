"""Store the documents of a file in the index: python index_documents.py --data=documents.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

from bertsearch import Index
from options import addresses, parser


def main() -> None:
    """Run the command."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=Path("documents.jsonl"), help="the documents [%(default)s]")
    given = options.parse_args()
    index = Index(given.index_name, addresses(given))
    with given.data.open(encoding="utf-8") as file:
        count = index.add(json.loads(line) for line in file if line.strip())
    print(f"{count} documents in the index {index.name}")


if __name__ == "__main__":
    main()

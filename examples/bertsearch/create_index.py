"""Create an index from a mapping: python create_index.py --index_file=index.json --index_name=jobsearch."""

from __future__ import annotations

import json
from pathlib import Path

from bertsearch import Index
from options import addresses, parser


def main() -> None:
    """Run the command."""
    options = parser(__doc__)
    options.add_argument("--index_file", type=Path, default=Path(__file__).with_name("index.json"), help="the mapping")
    given = options.parse_args()
    index = Index(given.index_name, addresses(given))
    index.create(json.loads(given.index_file.read_text(encoding="utf-8")))
    name, size = index.vector_field
    print(f"index {index.name}: {name} holds {size} numbers")


if __name__ == "__main__":
    main()

"""Make documents of a CSV with Title and Description: python create_documents.py --data=example.csv.

rows --BertClient.encode, 256 at a time--> documents.jsonl, a line a document with title, text and text_vector
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from bertsearch import Index, batches
from options import addresses, parser


def main() -> None:
    """Run the command."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, default=Path(__file__).with_name("example.csv"), help="the CSV")
    options.add_argument("--save", type=Path, default=Path("documents.jsonl"), help="where to write [%(default)s]")
    options.add_argument("--stock", action="store_true", help="use BertClient of bert-serving-client")
    given = options.parse_args()
    where = addresses(given)
    field, _ = Index(given.index_name, where).vector_field
    with given.data.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("Description") or "").strip()]
    if not rows:
        sys.exit(f"{given.data} has no row with a Description")
    with where.bert_client(stock=given.stock) as client, given.save.open("w", encoding="utf-8") as file:
        for part in batches(rows):
            vectors = client.encode([row["Description"] for row in part])
            for row, vector in zip(part, vectors.tolist(), strict=True):
                document = {"title": row["Title"], "text": row["Description"], field: vector}
                line = {"_op_type": "index", "_index": given.index_name, **document}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    print(f"{len(rows)} documents in {given.save}")


if __name__ == "__main__":
    main()

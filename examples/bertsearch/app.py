"""The page with one search box, and GET /search?q= behind it: python app.py, then http://127.0.0.1:5000.

GET /search?q=wine --BertClient.encode--> vector --Index.search--> {"took", "hits": {"total", "hits": [...]}}
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import uvicorn
from bertsearch import Index
from fastapi import FastAPI, Query
from fastapi.responses import FileResponse, JSONResponse
from options import addresses, parser

from flowdex.errors import FlowdexError

PAGE = Path(__file__).with_name("page") / "index.html"


def make_app(index: Index, *, stock: bool = False) -> FastAPI:
    """The application over one index; `stock` has queries encoded by BertClient of bert-serving-client."""
    app = FastAPI(title="bertsearch")
    client = index.addresses.bert_client(stock=stock, concurrent=True)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.get("/search")
    def search(q: str = "", size: Annotated[int | None, Query(ge=1)] = None) -> Any:
        """Rank all documents by the cosine of their vector to the query's, plus 1."""
        started = time.perf_counter()
        if not q.strip():
            return JSONResponse({"error": "q, the query, is missing"}, status_code=400)
        try:
            hits = index.search(client.encode([q])[0], size)
        except (FlowdexError, httpx.HTTPError) as error:
            return JSONResponse({"error": f"the flow did not answer: {error}"}, status_code=502)
        took = round(1000 * (time.perf_counter() - started))
        best = hits[0]["_score"] if hits else None
        total = {"value": len(hits), "relation": "eq"}
        return {"took": took, "timed_out": False, "hits": {"total": total, "max_score": best, "hits": hits}}

    return app


def main() -> None:
    """Run the command."""
    options = parser(__doc__)
    options.add_argument("--port", type=int, default=5000, help="of the page [%(default)s]")
    options.add_argument("--stock", action="store_true", help="use ConcurrentBertClient of bert-serving-client")
    given = options.parse_args()
    app = make_app(Index(given.index_name, addresses(given)), stock=given.stock)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()

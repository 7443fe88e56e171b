"""The gateway over HTTP: JSON in, JSON out, problem documents for errors.

    request --body.py--> model (models.py) --routes.py--> DocumentBatch --router--> reply --replies.py--> JSON
    error --problems.py--> application/problem+json (RFC 9457)

One decode and one encode at the edge; behind it the same bytes travel as over gRPC.
"""

"""Jina's HTTP and WebSocket contracts on the gateway's HTTP port, without Jina.

messages.py   a request as JSON <--> DataRequestProto, documents as JSON <--> DocumentBatch
route.py      POST /post, and Jina's bodies at every other path; GET /dry_run
websocket.py  / and /dry_run as WebSockets, serialised protobuf or JSON
"""

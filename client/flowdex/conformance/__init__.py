"""The contract suite: cases recorded from the contracts of other services, run against any server.

    recorded/*.json, --cases FILE --recorded.py--> steps, expectations --http.py--> requests over HTTP ---+
    bert.py, jina_grpc.py, jina_websocket.py ----> cases that are code --coded.py-> frames, messages -----+
                                                                                                          v
    report.py: table, JUnit <-- model.py: Report <-- suite.py <-- what was expected, what came: patterns, relations

Nothing of it is imported by the client. docs/conformance.md describes the files.
"""

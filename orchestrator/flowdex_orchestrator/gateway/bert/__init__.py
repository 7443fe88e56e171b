"""bert-as-service's ZeroMQ protocol in front of a flow, so that `BertClient` works unchanged.

    PUSH --frames.py--> texts --parameters.py--> documents --service.py: router--> vectors --frames.py--> PUB
                                                               |
    server.py: sockets, who listens, what is in flight      sessions.py: who asked how often

Nothing here is imported unless a flow serves the protocol, and pyzmq only by server.py.
"""

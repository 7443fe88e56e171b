"""The gateway: one front for the executors of a flow, over gRPC and HTTP.

    client --gRPC bytes--> grpc_server ---+                                          +--> replica of the encoder
    client --HTTP JSON---> http/app ------+--> router --plan of topology--> replicas +--> replica of the indexer

`frame` cuts a message into its fields without reading its documents, `topology` says who serves an endpoint and in
which order, `replicas` keeps one connection to each live replica, `router` takes a request through the plan, `server`
holds all of it together. Nothing here imports jina, docarray or torch.
"""

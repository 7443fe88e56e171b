"""The executor host: one gRPC server around one `jina.Executor`, ours or anybody's.

flowdex executor NAME --flow flow.yml --port P

cli ---> server ---- load ------> the executor, from its entry in the flow file
           |           |
           |        endpoints     what its @requests methods take and give
           |           |
           +------- service       bytes in, bytes out, errors inside replies
           |
           +------- health        NOT_SERVING until loaded and warm, and again while draining
"""

"""The executor host: one gRPC server around one `jina.Executor`, ours or anybody's.

flowdex executor NAME --flow flow.yml --port P

cli --> server --+-- load         the executor, from its entry in the flow file
+-- endpoints    its @requests methods and where they run; conversion: what they take and give
+-- discovery    what it tells about itself
+-- service      the gRPC methods: bytes in, bytes out, errors inside replies
"""

"""How well a flow finds: collections of documents, queries and judgements, the metrics over them, and reports.

    dataset (files) --> experiment: index, search each query in each setting --> metrics --> report, plot

Nothing of it is imported by the client; the metrics and the plot need the extra `flowdex[eval]`.
"""

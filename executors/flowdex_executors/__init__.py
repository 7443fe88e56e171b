"""The executors of a flow: segmenter, encoders, indexer, ranker."""

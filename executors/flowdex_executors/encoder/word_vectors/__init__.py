"""Word vectors: a text is what its words are, each looked up in a table (NNLM, word2vec, GloVe, fastText).

    file --reading--> WordVectors(words, table)
    text --WordTokenizer--> known words, their weights --LookUp--> rows of the table --TokenEncoder--> vector

`text_format` and `binary_format` read the published formats, `files` finds out which one a file is, `weights` says how
much a word counts, `executor` is the encoder of a flow.
"""

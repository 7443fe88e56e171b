"""ELMo: contextual word vectors of a bidirectional language model (Peters et al., 2018).

    words --characters--> ids --character_cnn--> word vectors --lstm--> a vector a layer --scalar_mix--> one

`backend` puts the parts together, `weights` reads the published files, `executor` is the encoder of a flow.
"""

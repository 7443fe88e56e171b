"""ULMFiT: the vectors of an AWD-LSTM language model (Howard and Ruder, 2018; Merity et al., 2018), from fastai's files.

    text --rules--> marked, lowered text --tokenizer--> token ids --awd_lstm--> token vectors --> last, max, mean

`weights` and `vocabulary` read fastai's files without ever running what is in them; `executor` is a flow's encoder.
"""

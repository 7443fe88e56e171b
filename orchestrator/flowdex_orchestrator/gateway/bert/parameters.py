"""bert-as-service's flags in the encoder's terms (its texts: `flowdex.compat.bert_texts`).

Bert (section of the flow file) --encode_parameters--> {pooling, layers, max_length, normalize, mask_special, tokens}

Layers are counted otherwise there: 0 is the first transformer layer, here it is the input embeddings.
"""

from __future__ import annotations

from typing import Any

from flowdex_orchestrator.flow.bert import ENCODER, Bert

__all__ = ["encode_parameters"]

_POOLING = {
    "NONE": "none",
    "REDUCE_MEAN": "mean",
    "REDUCE_MAX": "max",
    "REDUCE_MEAN_MAX": "mean_max",
    "FIRST_TOKEN": "cls",  # nosec B105 # BERT's tokens
    "CLS_TOKEN": "cls",  # nosec B105 # BERT's tokens
    "LAST_TOKEN": "sep",  # nosec B105 # BERT's tokens; its last token is the last [SEP]
    "SEP_TOKEN": "sep",  # nosec B105 # BERT's tokens
}


def encode_parameters(settings: Bert) -> dict[str, Any]:
    """The parameters of a request to `/encode`."""
    chosen: dict[str, Any] = {"tokens": True} if settings.show_tokens_to_client else {}
    if settings.pooling_strategy == ENCODER:
        return chosen
    chosen["pooling"] = _POOLING[settings.pooling_strategy]
    chosen["layers"] = [layer if layer < 0 else layer + 1 for layer in settings.pooling_layer]
    chosen["normalize"] = False
    if settings.mask_cls_sep:
        chosen["mask_special"] = True
    if settings.max_seq_len is not None:
        chosen["max_length"] = settings.max_seq_len
    return chosen

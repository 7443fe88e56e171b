"""The protocol's messages, generated from ``flowdex.proto`` and ``exchange.proto`` (``make proto``)."""

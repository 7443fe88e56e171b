"""The protocol's messages, generated from ``flowdex.proto`` (``make proto``)."""

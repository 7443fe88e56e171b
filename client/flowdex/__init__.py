"""flowdex: serve any text representation and search over it. `from flowdex import Client`."""

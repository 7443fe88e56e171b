"""The flow that is sent to: all executors as processes, in front of them a gateway with every protocol."""

from __future__ import annotations

from flow_support import ROOT, free_ports

__all__ = ["flow_text"]

_CHEAP = """\
jtype: Flow
with: {{name: mutation, protocol: [grpc, http, bert], port: [{ports[0]}, {ports[1]}, {ports[2]}]}}
gateway: {{bert: {{port_out: {ports[3]}}}}}
executors:
  - {{name: segmenter, uses: flowdex_executors.Segmenter}}
  - name: encoder
    uses: {encoder}
  - {{name: indexer, uses: flowdex_executors.QdrantIndexer, uses_with: {{uri: "memory://"}}}}
  - {{name: ranker, uses: flowdex_executors.Ranker}}
"""
_LETTERS = f"""Letters
    py_modules: [{ROOT / "tests" / "mutation" / "letters.py"}]"""


def flow_text(model: bool) -> str:
    """A flow with all executors; the encoder counts letters, or is MiniLM."""
    return _CHEAP.format(ports=free_ports(4), encoder="flowdex_executors.BertEncoder" if model else _LETTERS)

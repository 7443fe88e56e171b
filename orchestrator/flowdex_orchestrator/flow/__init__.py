"""The flow file: Jina's flow YAML, typed, with the line of every mistake.

flow.yml --load.py--> Flow (model.py) --check.py--> findings
                                      --schema.py--> JSON Schema for editors

Worker, gateway, runner and exporters all take the flow from here.
"""

from flowdex_orchestrator.flow.findings import Finding, FlowFileError
from flowdex_orchestrator.flow.load import default_flow_path, load_flow, parse_flow
from flowdex_orchestrator.flow.model import Executor, Flow, FlowSettings, Gateway

__all__ = [
    "Executor",
    "Finding",
    "Flow",
    "FlowFileError",
    "FlowSettings",
    "Gateway",
    "default_flow_path",
    "load_flow",
    "parse_flow",
]

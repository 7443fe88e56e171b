"""A flow, written for other runtimes than this machine.

    flow.yml --load_flow, inspect_classes--> Flow, facts --model.py--> Deployment (gateway, workloads)
        Deployment --kubernetes/--> Kustomize base, components, overlays
        Deployment --compose.py---> docker-compose.yml

What is written starts the same two commands that `flowdex up` starts: `flowdex gateway` and `flowdex executor NAME`.
"""

from flowdex_orchestrator.export.model import Deployment, Workload, make_deployment

__all__ = ["Deployment", "Workload", "make_deployment"]

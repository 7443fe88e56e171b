"""A deployment as Kubernetes objects, in the folders that Kustomize builds from.

    Deployment --render--> {path: text}
                            base/                the flow as its file says
                            components/          qdrant, qdrant-cluster, monitoring, ingress, gateway-api, keda
                            overlays/            local, gpu, production, production-keda

Each module makes one kind of object from the model; `kustomize` puts them into files.
"""

from flowdex_orchestrator.export.kubernetes.kustomize import render

__all__ = ["render"]

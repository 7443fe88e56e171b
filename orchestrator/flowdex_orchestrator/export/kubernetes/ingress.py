"""The ways into the cluster: Ingress, and the Gateway API's routes, for HTTP and for gRPC.

https://search.example.org       --> gateway:8080
grpcs://grpc.search.example.org  --> gateway:51000    a host of its own: both speak of paths at the root
"""

from __future__ import annotations

from flowdex_orchestrator.export.kubernetes.objects import Object, manifest, metadata, without_empty
from flowdex_orchestrator.export.model import Deployment
from flowdex_orchestrator.flow.deployment import Ingress

__all__ = ["ingresses", "routes"]

_DEFAULT_HOST = "flowdex.example.org"
_LED_IN = ("grpc", "http")
_DEFAULT_SECRET = "gateway-tls"  # nosec B105 # a name
# Of the usual controller; others read their own.
_PLAIN: Object = {
    "nginx.ingress.kubernetes.io/proxy-body-size": "64m",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "300",
}


def ingresses(deployment: Deployment) -> list[Object]:
    """An Ingress for each protocol of the gateway."""
    found = []
    for protocol, host in _hosts(deployment).items():
        settings = deployment.settings.ingress or Ingress()
        annotations = dict(_PLAIN)
        if protocol == "grpc":
            annotations["nginx.ingress.kubernetes.io/backend-protocol"] = "GRPC"
        backend = {"service": {"name": deployment.gateway.label, "port": {"name": protocol}}}
        rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        spec = without_empty(
            {
                "ingressClassName": settings.ingress_class,
                "tls": [{"hosts": [host], "secretName": settings.tls_secret or _DEFAULT_SECRET}],
                "rules": [rule],
            }
        )
        head = metadata(deployment, f"gateway-{protocol}", deployment.gateway.label, annotations=annotations)
        found.append(manifest("networking.k8s.io/v1", "Ingress", head, spec=spec))
    return found


def routes(deployment: Deployment) -> list[Object]:
    """The Gateway API's objects: a Gateway that ends TLS, an HTTPRoute and a GRPCRoute."""
    settings = deployment.settings.ingress or Ingress()
    hosts, api = _hosts(deployment), "gateway.networking.k8s.io/v1"
    listeners = [
        {
            "name": protocol,
            "hostname": host,
            "port": 443,
            "protocol": "HTTPS",
            "tls": {"mode": "Terminate", "certificateRefs": [{"name": settings.tls_secret or _DEFAULT_SECRET}]},
        }
        for protocol, host in hosts.items()
    ]
    spec: Object = {"gatewayClassName": settings.ingress_class or "default", "listeners": listeners}
    found = [manifest(api, "Gateway", metadata(deployment, deployment.name, deployment.gateway.label), spec=spec)]
    for protocol, host in hosts.items():
        port = deployment.gateway.ports[protocol]
        spec = {
            "parentRefs": [{"name": deployment.name, "sectionName": protocol}],
            "hostnames": [host],
            "rules": [{"backendRefs": [{"name": deployment.gateway.label, "port": port}]}],
        }
        kind = "GRPCRoute" if protocol == "grpc" else "HTTPRoute"
        head = metadata(deployment, f"gateway-{protocol}", deployment.gateway.label)
        found.append(manifest(api, kind, head, spec=spec))
    return found


def _hosts(deployment: Deployment) -> dict[str, str]:
    """Host name of each protocol: HTTP has the given one, gRPC, where there are both, one below it."""
    settings = deployment.settings.ingress or Ingress()
    # HTTP's port takes WebSockets too; bert is no HTTP, and stays inside.
    host, protocols = settings.host or _DEFAULT_HOST, [each for each in _LED_IN if each in deployment.gateway.ports]
    return {each: f"grpc.{host}" if each == "grpc" and len(protocols) > 1 else host for each in reversed(protocols)}

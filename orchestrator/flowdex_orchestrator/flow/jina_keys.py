"""The keys of stock Jina that flowdex accepts without acting on them, so that a flow written for Jina loads unchanged.

`flowdex check` warns of each that a flow uses. A test compares these tables with the parsers of the installed Jina.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["EXECUTOR_KEYS", "FLOW_KEYS", "GATEWAY_KEYS"]

_LOGGING = {
    "log_config": "Jina's logger configuration.",
    "quiet": "Emit no log.",
    "quiet_error": "Log no stack traces.",
    "suppress_root_logging": "Leave the root logger's handlers alone.",
}
_OBSERVABILITY = {
    "monitoring": "Serve Prometheus metrics.",
    "port_monitoring": "Port of the Prometheus metrics.",
    "traces_exporter_host": "Host that traces go to.",
    "traces_exporter_port": "Port that traces go to.",
    "metrics": "Send OpenTelemetry metrics.",
    "metrics_exporter_host": "Host that metrics go to.",
    "metrics_exporter_port": "Port that metrics go to.",
}
_CONTAINER = {
    "entrypoint": "Entry point of a Docker image.",
    "docker_kwargs": "Arguments for the Docker SDK.",
    "env_from_secret": "Environment variables from Kubernetes secrets.",  # nosec B105 # a help text
    "image_pull_secrets": "Kubernetes secrets to pull images with.",
    "k8s_namespace": "Namespace in Kubernetes.",
    "provider": "Cloud provider's container protocol.",
    "provider_endpoint": "Endpoint the cloud provider calls.",
}
_INTERNAL = {
    "extra_search_paths": "Folders in which Jina looks for files.",
    "noblock_on_start": "Internal to Jina.",
    "pod_role": "Internal to Jina.",
    "replica_id": "Internal to Jina.",
    "runtime_cls": "Internal to Jina.",
    "shard_id": "Internal to Jina.",
    "workspace_id": "Internal to Jina.",
}
_SERVER = {
    "compression": "gRPC compression between the parts.",
    "grpc_channel_options": "Options of gRPC channels.",
    "grpc_server_options": "Options of gRPC servers.",
    "peer_ports": "Ports of a stateful executor's peers.",
    "reload": "Restart when files change.",
    "ssl_certfile": "Certificate file of the server.",
    "ssl_keyfile": "Key file of the server.",
    "stateful": "Replicate writes through Jina's consensus module.",
    "timeout_ctrl": "Time-out of control requests, in milliseconds.",
    "tls": "Connect with TLS.",
}
_COMMON = _LOGGING | _OBSERVABILITY | _CONTAINER | _INTERNAL | _SERVER

_GATEWAY = _COMMON | {
    "deployments_addresses": "Addresses of the executors, as JSON.",
    "deployments_metadata": "gRPC metadata for each executor, as JSON.",
    "deployments_no_reduce": "Executors whose results are not merged, as JSON.",
    "deployments_disable_reduce": "Alias of deployments_no_reduce.",
    "expose_endpoints": "Map from endpoints to HTTP paths, as JSON.",
    "expose_graphql_endpoint": "Serve GraphQL.",
    "floating": "Internal to Jina.",
    "graph_conditions": "Conditions of the graph, as JSON.",
    "graph_description": "The graph, as JSON.",
    "no_crud_endpoints": "Serve no /index, /search, /update and /delete over HTTP.",
    "no_debug_endpoints": "Serve no /status and /post over HTTP.",
    "prefetch": "Requests taken from a client ahead of the answers.",
    "proxy": "Respect the proxy environment variables.",
    "replicas": "Replicas of the gateway in Kubernetes.",
}

_EXECUTOR = _COMMON | {
    "allow_concurrent": "Let the executor process requests concurrently.",
    "connection_list": "Connections of a head, as JSON.",
    "cors": "Allow cross-origin access over HTTP.",
    "deployment_role": "Internal to Jina.",
    "description": "Description of the executor's HTTP server.",
    "disable_auto_volume": "Mount no volume by default.",
    "disable_reduce": "Alias of no_reduce.",
    "exit_on_exceptions": "Exceptions that stop the executor.",
    "force_network_mode": "Docker's network mode.",
    "force_update": "Pull the newest bundle of a hub executor.",
    "grpc_metadata": "gRPC metadata of every request.",
    "install_requirements": "Install the executor's requirements.txt.",
    "native": "Allow no containers.",
    "no_reduce": "Do not merge the results of joined branches.",
    "output_array_type": "Type of arrays in answers.",
    "prefer_platform": "Docker platform.",
    "protocol": "Protocol of the executor; flowdex speaks gRPC between its parts.",
    "protocols": "Alias of protocol.",
    "raft_configuration": "Options of Jina's consensus module.",
    "title": "Title of the executor's HTTP server.",
    "uses_after": "Executor behind the shards.",
    "uses_after_address": "Address of uses_after.",
    "uses_before": "Executor in front of the shards.",
    "uses_before_address": "Address of uses_before.",
    "uses_dynamic_batching": "Jina's dynamic batching; flowdex encoders batch by themselves.",
    "uvicorn_kwargs": "Options of the executor's HTTP server.",
    "when": "Condition on documents.",
}

GATEWAY_KEYS: Mapping[str, str] = _GATEWAY
"""Keys of `gateway`."""

EXECUTOR_KEYS: Mapping[str, str] = _EXECUTOR
"""Keys of an item of `executors`."""

FLOW_KEYS: Mapping[str, str] = (
    _EXECUTOR
    | _GATEWAY
    | {
        "args": "Positional arguments of Jina's Flow.",
        "asyncio": "Make Jina's Flow asynchronous.",
        "inspect": "What Jina does with inspecting executors.",
        "kwargs": "Keyword arguments of Jina's Flow.",
        "reuse_session": "Reuse the HTTP client's session.",
        "uses": "Path of the flow itself.",
    }
)
"""Keys of `with`: what Jina hands down to gateway and executors, and its own."""

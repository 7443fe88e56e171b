"""Other people's services beside a flow in Docker Compose: a Qdrant server; Prometheus and Grafana.

    Deployment --with_qdrant----> the same, its indexers on the server;  service qdrant
    Deployment --monitoring-----> services prometheus, grafana;  their configuration, the dashboard of k8s/

Nothing of them can be reached from another machine, and Qdrant only by the indexers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.export.alerts import rule_groups
from flowdex_orchestrator.export.kubernetes import qdrant
from flowdex_orchestrator.export.kubernetes.monitoring import dashboard
from flowdex_orchestrator.export.kubernetes.objects import write_yaml
from flowdex_orchestrator.export.model import METRICS_PORT, Deployment
from flowdex_orchestrator.export.variables import WITHHELD

__all__ = ["INDEX_NETWORK", "QDRANT", "QDRANT_KEY", "Others", "monitoring", "qdrant_server", "with_qdrant"]

QDRANT = qdrant.NAME
INDEX_NETWORK = "index"
"""The network of Qdrant and the indexers alone."""
QDRANT_KEY = f"${{{qdrant.KEY}:-local}}"
"""Qdrant's API key, a word where the operator sets none: its network has no way out."""

PROMETHEUS_IMAGE = "prom/prometheus:v3.5.0"
GRAFANA_IMAGE = "grafana/grafana:12.1.1"
_PROMETHEUS_PORT, _GRAFANA_PORT = 9090, 3000
_SCRAPE_SECONDS = 15


@dataclass(frozen=True)
class Others:
    """Services, and what they need.

    Attributes:
        services: Name -> service.
        volumes: Names of their volumes.
        files: Path below the folder beside the Compose file -> text.
    """

    services: Mapping[str, dict[str, Any]]
    volumes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


def with_qdrant(deployment: Deployment) -> Deployment:
    """A deployment whose embedded indexes are on the server.

    Raises:
        ConfigurationError: No executor of it would use the server.
    """
    moved = {each.name: qdrant.on_server(each) for each in deployment.executors if each.stateful}
    if not moved and not any((each.qdrant or ("",))[0] == QDRANT for each in deployment.executors):
        raise ConfigurationError(
            f"no executor of {deployment.flow.name!r} would use a Qdrant server: leave `--with qdrant` out, or give an "
            f"indexer `uri: grpc://{QDRANT}:{qdrant.PORTS['grpc']}`"
        )
    if not moved:
        return deployment

    others = {qdrant.KEY: WITHHELD} if qdrant.KEY not in deployment.variables.secrets else {}
    source = deployment.flow.path.name if deployment.flow.path else "flow.yml"
    text = qdrant.flow_on_server(deployment, set(moved), of=f"../{source}")
    return replace(
        deployment,
        text=text,
        files={**deployment.files, "flow.yml": text},
        gateway=replace(deployment.gateway, env={**others, **deployment.gateway.env}),
        executors=tuple(
            moved.get(each.name) or replace(each, env={**others, **each.env}) for each in deployment.executors
        ),
    )


def qdrant_server() -> Others:
    """One Qdrant server, of the image that the Kubernetes export takes."""
    port = qdrant.PORTS["http"]
    # The image has no HTTP client; bash opens the connection.
    request = f"exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3; grep -q ' 200 ' <&3"
    service = {
        "image": qdrant.IMAGE,
        "environment": {
            "QDRANT__SERVICE__API_KEY": QDRANT_KEY,
            "QDRANT__TELEMETRY_DISABLED": "true",
            "QDRANT_INIT_FILE_PATH": "/qdrant/init/.qdrant-initialized",
        },
        "networks": [INDEX_NETWORK],
        "volumes": ["qdrant-storage:/qdrant/storage", "qdrant-snapshots:/qdrant/snapshots"],
        **_confined("/tmp", "/qdrant/init"),  # nosec B108 # a folder within the container
        "stop_grace_period": "60s",
        "healthcheck": _check(["CMD", "bash", "-c", request], start=1200),
    }
    return Others({QDRANT: service}, ("qdrant-storage", "qdrant-snapshots"))


def monitoring(deployment: Deployment, folder: str) -> Others:
    """Prometheus, which asks every container and has the alerts, and Grafana with the flow's dashboard.

    Args:
        deployment: The flow.
        folder: Where their files will lie, as the Compose file names it.
    """
    prometheus = {
        "image": PROMETHEUS_IMAGE,
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=15d",
        ],
        "ports": [f"127.0.0.1:{_PROMETHEUS_PORT}:{_PROMETHEUS_PORT}"],
        "volumes": [
            f"{folder}/prometheus.yml:/etc/prometheus/prometheus.yml:ro",
            f"{folder}/alerts.yml:/etc/prometheus/alerts.yml:ro",
            "prometheus:/prometheus",
        ],
        **_confined("/tmp"),  # nosec B108 # a folder within the container
        "healthcheck": _check(_wget(f"http://127.0.0.1:{_PROMETHEUS_PORT}/-/ready"), start=60),
    }
    grafana = {
        "image": GRAFANA_IMAGE,
        "environment": {
            # Whoever is on this machine may look; nobody logs in, so there is no password that everybody knows.
            "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
            "GF_AUTH_DISABLE_LOGIN_FORM": "true",
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_NEWS_NEWS_FEED_ENABLED": "false",
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        },
        "ports": [f"127.0.0.1:{_GRAFANA_PORT}:{_GRAFANA_PORT}"],
        "depends_on": ["prometheus"],
        "volumes": [
            f"{folder}/grafana/provisioning:/etc/grafana/provisioning:ro",
            f"{folder}/grafana/dashboards:/etc/grafana/dashboards:ro",
            "grafana:/var/lib/grafana",
        ],
        **_confined("/tmp"),  # nosec B108 # a folder within the container
        "healthcheck": _check(_wget(f"http://127.0.0.1:{_GRAFANA_PORT}/api/health"), start=120),
    }
    files = {
        "prometheus.yml": write_yaml("What Prometheus asks, and how often.", [_scraping(deployment)]),
        "alerts.yml": write_yaml("What Prometheus warns of.", [{"groups": rule_groups()}]),
        "grafana/provisioning/datasources/prometheus.yml": write_yaml("Where Grafana asks.", [_DATASOURCE]),
        "grafana/provisioning/dashboards/flowdex.yml": write_yaml("Where Grafana finds dashboards.", [_PROVIDER]),
        "grafana/dashboards/flowdex.json": dashboard(deployment),
    }
    return Others({"prometheus": prometheus, "grafana": grafana}, ("prometheus", "grafana"), files)


# ---- parts ----

_DATASOURCE: dict[str, Any] = {
    "apiVersion": 1,
    "datasources": [
        {
            "name": "Prometheus",
            "type": "prometheus",
            "uid": "prometheus",
            "access": "proxy",
            "url": f"http://prometheus:{_PROMETHEUS_PORT}",
            "isDefault": True,
            "jsonData": {"timeInterval": f"{_SCRAPE_SECONDS}s"},
        }
    ],
}
_PROVIDER: dict[str, Any] = {
    "apiVersion": 1,
    "providers": [{"name": "flowdex", "type": "file", "options": {"path": "/etc/grafana/dashboards"}}],
}


def _scraping(deployment: Deployment) -> dict[str, Any]:
    """One job a service: its name lists the containers it has just now."""
    jobs = [
        {
            "job_name": each.label,
            "dns_sd_configs": [{"names": [each.label], "type": "A", "port": METRICS_PORT}],
            # As in a cluster: the dashboard is the same.
            "relabel_configs": [{"target_label": "namespace", "replacement": deployment.name}],
        }
        for each in deployment.workloads
    ]
    return {
        "global": {"scrape_interval": f"{_SCRAPE_SECONDS}s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": jobs,
    }


def _confined(*temporary: str) -> dict[str, Any]:
    return {
        "tmpfs": list(temporary),
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
    }


def _check(test: list[str], start: int) -> dict[str, Any]:
    return {"test": test, "interval": "30s", "timeout": "5s", "retries": 3, "start_period": f"{start}s"}


def _wget(url: str) -> list[str]:
    return ["CMD", "wget", "--quiet", "--spider", url]

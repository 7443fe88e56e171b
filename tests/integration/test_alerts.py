"""The alert rules and the dashboard: of the right form, and about metrics that a running flow has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from flow_support import ROOT

from flowdex_orchestrator.export.alerts import ALERTS

RULES = ROOT / "docker-compose/alerts.yml"
PROMTOOL = shutil.which("promtool", path=os.environ.get("PROMTOOL_PATH", os.defpath + ":/usr/bin"))

# https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
RULE_FILE = {
    "type": "object",
    "required": ["groups"],
    "additionalProperties": False,
    "properties": {
        "groups": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "rules"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "interval": {"type": "string"},
                    "rules": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["alert", "expr", "for", "labels", "annotations"],
                            "additionalProperties": False,
                            "properties": {
                                "alert": {"type": "string", "pattern": "^Flowdex[A-Za-z]+$"},
                                "expr": {"type": "string", "minLength": 1},
                                "for": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"},
                                "labels": {
                                    "type": "object",
                                    "required": ["severity"],
                                    "properties": {"severity": {"enum": ["critical", "warning"]}},
                                    "additionalProperties": {"type": "string"},
                                },
                                "annotations": {
                                    "type": "object",
                                    "required": ["summary", "runbook_url"],
                                    "additionalProperties": {"type": "string"},
                                },
                            },
                        },
                    },
                },
            },
        }
    },
}

# The part of Grafana's dashboard schema that ours uses (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/).
DASHBOARD = {
    "type": "object",
    "required": ["title", "uid", "schemaVersion", "panels", "templating", "time", "refresh", "tags"],
    "additionalProperties": False,
    "properties": {
        "uid": {"type": "string", "maxLength": 40},
        "title": {"type": "string", "minLength": 1},
        "tags": {"type": "array", "items": {"type": "string"}},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "refresh": {"type": "string", "pattern": "^[0-9]+[smh]$"},
        "time": {"type": "object", "required": ["from", "to"]},
        "templating": {
            "type": "object",
            "properties": {
                "list": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name", "type", "query"],
                        "properties": {"type": {"enum": ["datasource", "constant", "query", "interval", "custom"]}},
                    },
                }
            },
        },
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "datasource", "gridPos", "fieldConfig", "targets"],
                "additionalProperties": False,
                "properties": {
                    "id": {"type": "integer", "minimum": 1},
                    "type": {"enum": ["timeseries", "stat", "gauge", "table"]},
                    "title": {"type": "string", "minLength": 1},
                    "datasource": {"type": "object", "required": ["type", "uid"]},
                    "gridPos": {
                        "type": "object",
                        "required": ["h", "w", "x", "y"],
                        "properties": {
                            "w": {"type": "integer", "minimum": 1, "maximum": 24},
                            "x": {"type": "integer", "minimum": 0, "maximum": 23},
                            "h": {"type": "integer", "minimum": 1},
                            "y": {"type": "integer", "minimum": 0},
                        },
                    },
                    "fieldConfig": {"type": "object", "required": ["defaults", "overrides"]},
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["refId", "expr"],
                            "properties": {"expr": {"type": "string", "minLength": 1}},
                        },
                    },
                },
            },
        },
    },
}


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docker-compose/grafana/dashboards/flowdex.json").read_text())
    return found


def test_the_rules_are_of_the_form_that_prometheus_reads() -> None:
    rules = yaml.safe_load(RULES.read_text())
    jsonschema.validate(rules, RULE_FILE)
    assert [rule["alert"] for group in rules["groups"] for rule in group["rules"]] == [alert.name for alert in ALERTS]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt-get install prometheus)")
def test_prometheus_own_tool_accepts_rules_and_configuration(tmp_path: Path) -> None:
    assert PROMTOOL is not None
    for name in ("alerts.yml", "prometheus.yml"):
        shutil.copy(ROOT / "docker-compose" / name, tmp_path)
    for what, file in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        done = subprocess.run(
            [PROMTOOL, "check", what, file], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    for number, panel in enumerate(board()["panels"]):  # the dashboard's queries, as rules
        for target in panel["targets"]:
            query = target["expr"].replace("$namespace", "flowdex")
            rule = {"groups": [{"name": "g", "rules": [{"record": f"panel_{number}", "expr": query}]}]}
            file = tmp_path / "panel.yml"
            file.write_text(yaml.safe_dump(rule))
            done = subprocess.run(
                [PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, f"{panel['title']}: {done.stdout}{done.stderr}"


def test_the_dashboard_is_of_the_form_that_grafana_reads() -> None:
    found = board()
    jsonschema.validate(found, DASHBOARD)
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in found["panels"]}) == len(found["panels"])


def test_each_alert_has_its_section_in_the_runbook() -> None:
    runbook = ROOT / "docs/runbook.md"
    if not runbook.exists():
        pytest.skip("there is no runbook yet")
    sections = set(re.findall(r"^#+ (Flowdex\w+)", runbook.read_text(), re.MULTILINE))
    assert {alert.name for alert in ALERTS} <= sections

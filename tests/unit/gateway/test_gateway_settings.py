"""Settings of the gateway, as a flow file gives them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow import load_flow
from flowdex_orchestrator.gateway.server import settings_from_flow, targets_from_flow
from flowdex_orchestrator.gateway.settings import GatewaySettings

FLOW = """
jtype: Flow
with: {timeout_send: 5000}
executors:
  - {name: a, uses: x.A, port: [1001, 1002], replicas: 2}
  - {name: b, uses: x.B, port: 1003, timeout_send: 200, retries: 0}
  - {name: c, uses: x.C, needs: a, floating: true}
"""


def test_known_settings_are_taken() -> None:
    settings = GatewaySettings.from_options(
        {"max_in_flight": 8, "replica_wait": 2, "idempotent_endpoints": ["/x"], "cors": True, "title": "T"}
    )
    assert (settings.max_in_flight, settings.replica_wait, settings.cors, settings.title) == (8, 2.0, {"*"}, "T")
    assert settings.idempotent_endpoints == {"/x"}
    assert settings.max_texts == GatewaySettings().max_texts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_inflight": 8}, "did you mean 'max_in_flight'"),
        ({"xyzzy": "red"}, "known are"),
        ({"max_in_flight": "many"}, "must be a number"),
        ({"max_in_flight": 0}, "must not be 0"),
        ({"max_in_flight": 1.5}, "must be a number"),
        ({"drain": -1}, "must not be -1"),
        ({"drain": True}, "must be a number"),
        ({"cors": "yes"}, "a list of texts"),
        ({"insecure": "yes"}, "true or false"),
        ({"title": 5}, "a string"),
        ({"idempotent_endpoints": "/x"}, "a list of texts"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        GatewaySettings.from_options(options)


def test_targets_come_from_the_flow_and_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text(FLOW)
    flow = load_flow(tmp_path / "flow.yml")
    a, b, c = targets_from_flow(flow, {"c": ["10.0.0.1:7"]})
    assert a.addresses == ("127.0.0.1:1001", "127.0.0.1:1002")
    assert (a.timeout, a.retries, a.needs) == (5.0, -1, ("gateway",))
    assert (b.timeout, b.retries, b.needs) == (0.2, 0, ("a",))
    assert (c.addresses, c.needs, c.floating) == (("10.0.0.1:7",), ("a",), True)
    with pytest.raises(ConfigurationError, match="--address c=HOST:PORT"):
        targets_from_flow(flow)
    with pytest.raises(ConfigurationError, match="no executor 'd'"):
        targets_from_flow(flow, {"d": ["10.0.0.1:7"]})


def test_settings_come_from_uses_with_and_jinas_own_keys(tmp_path: Path) -> None:
    (tmp_path / "flow.yml").write_text(
        FLOW.replace("timeout_send: 5000", "cors: true, title: Ours") + "gateway: {uses_with: {max_texts: 5}}\n"
    )
    settings = settings_from_flow(load_flow(tmp_path / "flow.yml"))
    assert (settings.cors, settings.title, settings.max_texts) == ({"*"}, "Ours", 5)
    (tmp_path / "flow.yml").write_text(FLOW)
    assert settings_from_flow(load_flow(tmp_path / "flow.yml")) == GatewaySettings()


@given(
    st.dictionaries(
        st.one_of(st.sampled_from([each.name for each in fields(GatewaySettings)]), st.text(max_size=6)),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=6),
            st.lists(st.one_of(st.text(max_size=4), st.integers()), max_size=3),
            st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        ),
        max_size=4,
    )
)
@example({"max_in_flight": float("inf")})
@example({"max_texts": float("nan")})
@example({"drain": float("inf")})
def test_any_options(options: dict[str, object]) -> None:
    """Settings, or an error of ours."""
    try:
        settings = GatewaySettings.from_options(options)
    except ConfigurationError as error:
        assert "gateway.uses_with" in error.message
    else:
        assert options.keys() <= {each.name for each in fields(settings)}

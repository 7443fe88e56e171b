"""load_flow: what a flow file means, and the exact message and line of every mistake."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from flowdex.errors import ConfigurationError, error_from_name
from flowdex_orchestrator.flow import Flow, FlowFileError, default_flow_path, load_flow, parse_flow
from flowdex_orchestrator.flow.overrides import parse_overrides
from flowdex_orchestrator.gateway.topology import Topology

ROOT = Path(__file__).resolve().parents[3]


def flow(text: str, **keywords: object) -> Flow:
    return parse_flow("jtype: Flow\n" + dedent(text), file="flow.yml", **keywords)  # type: ignore[arg-type]


def mistakes(text: str, **keywords: object) -> list[str]:
    with pytest.raises(FlowFileError) as caught:
        parse_flow(dedent(text), file="flow.yml", **keywords)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


# ---- what a file means ----


def test_the_default_flow() -> None:
    read = load_flow(ROOT / "flow.yml")
    assert read.name == "flowdex"
    assert read.gateway.listeners() == [("grpc", 51000), ("http", 8080)]
    assert Topology(read.predecessors()).executors == ("segmenter", "encoder", "indexer", "ranker")
    assert read.executor("indexer").uses_with == {"uri": "edge://.flowdex/index"}
    assert [executor.replicas for executor in read.executors] == [1, 1, 1, 1]
    assert read.folder == ROOT


def test_defaults() -> None:
    read = flow("executors: [{}, {name: b}]")
    first = read.executors[0]
    assert [executor.name for executor in read.executors] == ["executor0", "b"]
    assert (first.uses, first.replicas, first.hosts, first.ports, first.external) == (
        "BaseExecutor",
        1,
        ("127.0.0.1",),
        (),
        False,
    )
    assert (first.send_timeout, first.ready_timeout, first.retries) == (None, 600.0, -1)
    assert read.gateway.listeners() == [("grpc", 0)]
    assert read.gateway.host == "127.0.0.1"
    assert flow("").executors == ()


def test_one_value_stands_for_a_list_and_digits_for_a_number() -> None:
    read = flow(
        """
        with: {port: '5000', protocol: HTTP}
        executors:
          - {name: a, replicas: "2", port: '6000,6001', py_modules: a.py, volumes: a:b, external: 'False', gpus: 1}
          - {name: b, host: 'h1, h2', ports: 7000, external: true, needs: gateway}
        """
    )
    assert (read.gateway.ports, read.gateway.protocols) == ((5000,), ("http",))
    a, b = read.executors
    assert (a.replicas, a.ports, a.py_modules, a.volumes, a.external, a.gpus) == (
        2,
        (6000, 6001),
        ("a.py",),
        ("a:b",),
        False,
        "1",
    )
    assert a.addresses() == ["127.0.0.1:6000", "127.0.0.1:6001"]
    assert b.addresses() == ["h1:7000", "h2:7000"]


@pytest.mark.parametrize(
    ("keys", "addresses"),
    [
        ("host: grpc://h:1", ["h:1"]),
        ("host: [a:1, b:2]", ["a:1", "b:2"]),
        ("{host: '::1', port: 5}", ["[::1]:5"]),
        ("{host: '[::1]', port: 5}", ["[::1]:5"]),
        ("{host: h, port: [1, 2]}", ["h:1", "h:2"]),
        ("{host: [h, i], port: [1, 2]}", ["h:1", "i:2"]),
        ("port: 5", ["127.0.0.1:5"]),
    ],
)
def test_addresses_of_an_external_executor(keys: str, addresses: list[str]) -> None:
    keys = keys.strip("{}")
    assert flow(f"executors: [{{external: true, {keys}}}]").executors[0].addresses() == addresses


def test_settings_are_handed_down() -> None:
    read = flow(
        """
        with:
          timeout_send: 500
          timeout_ready: 1000
          retries: 2
          workspace: w
          replicas: 3
          log_level: debug
          host: 0.0.0.0
          port: 5000
          env: {A: 1, B: true}
        gateway: {timeout_send: 700, env: {C: c}}
        executors:
          - name: a
          - {name: b, timeout_send: -1, replicas: 1, env: {B: x}}
        """
    )
    a, b = read.executors
    assert (a.send_timeout, a.ready_timeout, a.retries, a.workspace, a.replicas, a.log_level) == (
        0.5,
        1.0,
        2,
        "w",
        3,
        "DEBUG",
    )
    assert (b.send_timeout, b.ready_timeout, b.replicas) == (None, 1.0, 1)
    assert (a.env, b.env) == ({"A": "1", "B": "True"}, {"A": "1", "B": "x"})
    assert (a.hosts, a.ports) == (("127.0.0.1",), ())  # only the gateway is opened to the network
    assert (read.gateway.host, read.gateway.ports, read.gateway.send_timeout) == ("0.0.0.0", (5000,), 0.7)
    assert read.gateway.env == {"A": "1", "B": "True", "C": "c"}


@pytest.mark.parametrize(
    ("executors", "expected"),
    [
        ("[{name: a}, {name: b}]", {"a": ["gateway"], "b": ["a"]}),
        (
            "[{name: a}, {name: b, needs: gateway}, {name: c, needs: [a, b]}]",
            {"a": ["gateway"], "b": ["gateway"], "c": ["a", "b"]},
        ),
        ("[{name: a, floating: true}, {name: b}]", {"a": ["gateway"], "b": ["gateway"]}),
        ("[{name: a, needs: b}, {name: b, needs: gateway}]", {"a": ["b"], "b": ["gateway"]}),
        ("[{name: a}, {name: b, needs: []}]", {"a": ["gateway"], "b": ["a"]}),
        ("[{name: a}, {name: b, needs: [a, a]}]", {"a": ["gateway"], "b": ["a"]}),
    ],
)
def test_predecessors(executors: str, expected: dict[str, list[str]]) -> None:
    read = flow(f"executors: {executors}")
    assert read.predecessors() == expected
    order = Topology(read.predecessors()).executors
    assert sorted(order) == sorted(expected)
    for name, needed in expected.items():
        assert all(order.index(need) < order.index(name) for need in needed if need != "gateway")


def test_deployments_extensions_and_anchors() -> None:
    read = flow(
        """
        x-defaults: &defaults
          replicas: 2
          uses: a.B
        deployments:
          - <<: *defaults
            name: a
            replicas: 3
          - <<: [*defaults]
            name: b
        """
    )
    assert [(item.name, item.uses, item.replicas) for item in read.executors] == [("a", "a.B", 3), ("b", "a.B", 2)]


def test_values_that_yaml_1_1_gets_wrong_stay_text() -> None:
    read = flow("executors: [{uses_with: {on: off, date: 2020-01-01, sign: =, quoted: '5', no: no}}]")
    assert read.executors[0].uses_with == {"on": "off", "date": "2020-01-01", "sign": "=", "quoted": "5", "no": False}


def test_a_key_without_value_is_no_key() -> None:
    read = flow("with:\ngateway:\nexecutors: [{name: a, needs: , replicas: , uses_with: }]")
    assert read.executors[0].replicas == 1
    assert read.predecessors() == {"a": ["gateway"]}


def test_keys_of_jina_are_accepted() -> None:
    read = flow("executors: [{name: a, docker_kwargs: {x: 1}, force: true}]")
    assert read.executors[0].unused == ["docker_kwargs", "force_update"]


def test_with_replicas() -> None:
    read = flow("executors: [{name: a}, {name: b}]")
    assert [item.replicas for item in read.with_replicas({"b": 4}).executors] == [1, 4]
    assert [item.replicas for item in read.executors] == [1, 1]
    with pytest.raises(ConfigurationError, match=r"no executor 'bb' .did you mean 'b'"):
        read.with_replicas({"bb": 2})
    with pytest.raises(ConfigurationError, match="at least one"):
        read.with_replicas({"b": 0})


def test_with_arguments() -> None:
    read = flow("executors: [{name: a, uses_with: {x: 1, y: 2}}, {name: b, external: true, port: 5}]")
    changed = read.with_arguments(parse_overrides(["a.y=[3]", "a.z=text", "a.y=4", 'a.quoted="8"']))
    assert changed.executor("a").uses_with == {"x": 1, "y": 4, "z": "text", "quoted": "8"}
    assert read.executor("a").uses_with == {"x": 1, "y": 2}
    with pytest.raises(ConfigurationError, match="b is external"):
        read.with_arguments({"b": {"x": 1}})
    with pytest.raises(ConfigurationError, match="no executor 'c'"):
        read.with_arguments({"c": {"x": 1}})


@pytest.mark.parametrize("item", ["", "a", "a=1", "a.b", "a.=1", ".b=1", "a=x.y=1"])
def test_arguments_that_are_none(item: str) -> None:
    with pytest.raises(ConfigurationError, match="KEY=VALUE"):
        parse_overrides([item])


def test_with_free_ports() -> None:
    read = flow(
        "with: {port: 5}\nexecutors: [{name: a, port: 6}, {name: b, external: true, port: 7}]"
    ).with_free_ports()
    assert read.gateway.listeners() == [("grpc", 0)]
    assert [executor.ports for executor in read.executors] == [(), (7,)]


def test_a_flow_made_in_python() -> None:
    made = Flow.model_validate({"jtype": "Flow", "executors": [{"name": "a", "port": 5}]})
    assert made.executor("a").ports == (5,)
    assert made.path is None
    assert made.finding(("executors", 0), "x").line is None
    with pytest.raises(ValueError, match=r"unknown key .did you mean 'needs'"):
        Flow.model_validate({"jtype": "Flow", "executors": [{"need": "a"}]})
    with pytest.raises(ValueError, match=r"executors\[1\].name: 'a' is the name"):
        Flow.model_validate({"jtype": "Flow", "executors": [{"name": "a"}, {"name": "a"}]})


# ---- mistakes ----

HEAD = "jtype: Flow\n"
ONE = HEAD + "executors:\n  - name: a\n    "
MISTAKES = {
    # text of the file: the whole message
    "": "flow.yml:1:1: the file is empty; a flow starts with `jtype: Flow`",
    "# only a comment\n": "flow.yml:1:1: the file is empty; a flow starts with `jtype: Flow`",
    "- a\n- b\n": "flow.yml:1:1: expected a mapping that starts with `jtype: Flow`",
    "just text": "flow.yml:1:1: expected a mapping that starts with `jtype: Flow`",
    "executors: []\n": "flow.yml:1:1: jtype: the key is missing; write `jtype: Flow`",
    "jtype: Deployment\n": "flow.yml:1:1: jtype: expected Flow, got 'Deployment'",
    HEAD + "version: 2\n": "flow.yml:2:1: version: expected version '1', got 2",
    "!Flow\nwith: {}\n": (
        "flow.yml:1:1: the tag !Flow is the syntax of Jina 2; write `jtype: Flow` as the first key instead"
    ),
    HEAD + "pods: []\n": "flow.yml:2:1: pods: the key `pods` is the syntax of Jina 2; write `executors`",
    HEAD + "executor: []\n": "flow.yml:2:1: executor: unknown key (did you mean 'executors'?)",
    HEAD + "port: 5\n": "flow.yml:2:1: port: unknown key; it belongs under `with`",
    HEAD + "with: 5\n": "flow.yml:2:1: with: expected a mapping (key: value), got 5",
    HEAD + "executors: a\n": "flow.yml:2:1: executors: expected a list of executors (- name: ...), got 'a'",
    HEAD + "executors:\n  - a.yml\n": ("flow.yml:3:5: executors[0]: expected a mapping (key: value), got 'a.yml'"),
    # keys of `with` and `gateway`
    HEAD + "with:\n  prots: 5\n": "flow.yml:3:3: with.prots: unknown key (did you mean 'ports'?)",
    HEAD + "with:\n  port: 70000\n": (
        "flow.yml:3:3: with.port: expected a port (0 to 65535; 0 takes any free one), got 70000"
    ),
    HEAD + "with:\n  protocol: [grpc, htp]\n": (
        "flow.yml:3:3: with.protocol: expected a protocol (grpc, http, websocket, bert), got 'htp' "
        "(did you mean 'http'?)"
    ),
    HEAD + "with:\n  protocol: [grpc, http]\n  port: 5\n": (
        "flow.yml:4:3: with.port: expected one port for each of grpc, http, got 1"
    ),
    HEAD + "gateway:\n  protocol: [grpc, http]\n  port: [5, 5]\n": (
        "flow.yml:4:3: gateway.port: expected different ports for the protocols"
    ),
    HEAD + "with:\n  timeout_send: 1.5\n": (
        "flow.yml:3:3: with.timeout_send: expected milliseconds (a positive integer, or -1 for no limit), got 1.5"
    ),
    HEAD + "with:\n  timeout_send: -2\n": (
        "flow.yml:3:3: with.timeout_send: expected milliseconds (a positive integer, or -1 for no limit), got -2"
    ),
    HEAD + "with:\n  retries: many\n": (
        "flow.yml:3:3: with.retries: expected a number of retries (0 or more; -1 for the default), got 'many'"
    ),
    HEAD + "with:\n  cors: 1\n": (
        "flow.yml:3:3: with.cors: expected true, false, or origins such as https://app.example.com, got 1"
    ),
    HEAD + "with:\n  log_level: loud\n": (
        "flow.yml:3:3: with.log_level: expected a log level (DEBUG, INFO, WARNING, ERROR, CRITICAL), got 'loud'"
    ),
    HEAD + "with:\n  env: [A]\n": "flow.yml:3:3: with.env: expected a mapping (key: value), got ['A']",
    HEAD + "with:\n  name: 5\n": "flow.yml:3:3: with.name: expected a text, got 5; quote it",
    # executors
    ONE + "replicas: two\n": "flow.yml:4:5: executors[0].replicas: expected a positive integer, got 'two'",
    ONE + "replicas: 0\n": "flow.yml:4:5: executors[0].replicas: expected a positive integer, got 0",
    ONE + "replicas: true\n": "flow.yml:4:5: executors[0].replicas: expected a positive integer, got True",
    ONE + "replicas: 99999999999999999999999x\n": (
        "flow.yml:4:5: executors[0].replicas: expected a positive integer, got '99999999999999999999999x'"
    ),
    ONE + "need: b\n": "flow.yml:4:5: executors[0].need: unknown key (did you mean 'needs'?)",
    ONE + "uses: [x]\n": (
        "flow.yml:4:5: executors[0].uses: "
        "expected package.Class, a config.yml or an inline mapping with jtype, got ['x']"
    ),
    ONE + "uses_with: x\n": "flow.yml:4:5: executors[0].uses_with: expected a mapping (key: value), got 'x'",
    ONE + "polling: some\n": (
        "flow.yml:4:5: executors[0].polling: "
        "expected a polling, or a mapping from endpoints to pollings (ANY, ALL), got 'some'"
    ),
    ONE + "gpus: -1\n": (
        "flow.yml:4:5: executors[0].gpus: expected a number of GPUs, 'all' or 'device=ID[,device=ID]', got -1"
    ),
    ONE + "method: inspect\n": "flow.yml:4:5: executors[0].method: expected add or needs, got 'inspect'",
    ONE + "env: {A: [1]}\n": ("flow.yml:4:5: executors[0].env: expected a text or number for the variable A, got [1]"),
    ONE + "host: [a, b]\n": (
        "flow.yml:4:5: executors[0].host: expected one host: only an `external: true` executor has several"
    ),
    ONE + "ports: [1, 2]\n": ("flow.yml:4:5: executors[0].ports: expected one port for each of the 1 replicas, got 2"),
    ONE + "external: true\n": (
        "flow.yml:4:5: executors[0].external: an external executor needs the `port` (and `host`) where it listens"
    ),
    ONE + "{external: true, port: 5, replicas: 2}\n".strip("{}\n").replace(", ", "\n    "): (
        "flow.yml:6:5: executors[0].replicas: expected 1, one for each address, or no `replicas`, got 2"
    ),
    ONE + "external: true\n    host: [a, b, c]\n    port: [1, 2]\n": (
        "flow.yml:6:5: executors[0].port: expected one port for each of the 3 hosts, or one for all, got 2"
    ),
    # the graph
    ONE + "needs: b\n": "flow.yml:4:5: executors[0].needs: no executor is named 'b'; the executors are a",
    ONE + "needs: gatway\n": (
        "flow.yml:4:5: executors[0].needs: no executor is named 'gatway' (did you mean 'gateway'?)"
    ),
    ONE + "needs: a\n": "flow.yml:4:5: executors[0].needs: 'a' cannot wait for itself",
    ONE + "\n  - name: a\n": "flow.yml:5:5: executors[1].name: 'a' is the name of executors[0] already",
    HEAD + "executors: [{name: gateway}]\n": (
        "flow.yml:2:14: executors[0].name: 'gateway' is the name of the gateway; choose another"
    ),
    HEAD + "executors: [{name: my-exec}]\n": (
        "flow.yml:2:14: executors[0].name: expected letters, digits and _ (not a digit first), got 'my-exec'"
    ),
    HEAD + "executors:\n  - {name: z, needs: c}\n  - {name: b, needs: z}\n  - {name: c, needs: b}\n": (
        "flow.yml:3:15: executors[0].needs: the executors wait for each other: z -> c -> b -> z"
    ),
    # YAML
    ONE + "a: [1\n": (
        "flow.yml:5:1: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"
    ),
    HEAD + "\twith: 5\n": (
        "flow.yml:2:1: not valid YAML: while scanning for the next token, "
        "found character '\\t' that cannot start any token; indent with spaces, not tabs"
    ),
    HEAD + "with: {}\nwith: {}\n": "flow.yml:3:1: with: the key stands twice, first in line 2",
    HEAD + "---\njtype: Flow\n": (
        "flow.yml:2:1: not valid YAML: expected a single document in the stream, but found another document"
    ),
    HEAD + "with:\n  ? [a]\n  : 1\n": "flow.yml:3:5: with: a key must be a word, not a list or mapping",
    HEAD + "with:\n  env: {A: !!python/object:os.system 1}\n": (
        "flow.yml:3:12: with.env.A: the YAML tag !!python/object:os.system is not allowed in a flow; write plain values"
    ),
    HEAD + "executors:\n  - uses: !MyExecutor {}\n": (
        "flow.yml:3:11: executors[0].uses: the tag !MyExecutor is the syntax of Jina 2; "
        "write `jtype: MyExecutor` as a key, or `uses: MyExecutor`"
    ),
    HEAD + "with:\n  env: {A: !!int x}\n": "flow.yml:3:12: with.env.A: 'x' is not a valid int",
    HEAD + f"with:\n  retries: {'9' * 5000}\n": "flow.yml:3:12: with.retries: a number of 5000 digits is too long",
    HEAD + "x-a: &a [*a]\n": "flow.yml:2:6: x-a[0]: an alias must not contain itself",
    HEAD + "x-a: &a {<<: *a}\n": "flow.yml:2:6: x-a.<<: an alias must not contain itself",
    HEAD + "x-a: {<<: 5}\n": "flow.yml:2:11: x-a.<<: `<<` merges mappings only",
    HEAD + "x-a: *b\n": "flow.yml:2:6: not valid YAML: found undefined alias 'b'",
    HEAD + "name: a\x01\n": "flow.yml:2:8: the character U+0001 is not allowed in YAML",
    HEAD + "x-a: " + "[" * 5000: "flow.yml:1:1: nested too deeply to be a flow",
    # variables
    HEAD + "with: {name: '${{ ENV.NAM }}'}\n": (
        "flow.yml:2:14: with.name: the environment variable 'NAM' is not defined (did you mean 'NAME'?); "
        "set it, or write $$ for a dollar"
    ),
    HEAD + "with: {name: a $X}\n": (
        "flow.yml:2:14: with.name: the environment variable 'X' is not defined; set it, or write $$ for a dollar"
    ),
    HEAD + "with: {name: '${{ CONTEXT.x }}'}\n": (
        "flow.yml:2:14: with.name: the context variable 'x' is not defined; pass it, or write $$ for a dollar"
    ),
    HEAD + "with: {name: '${{ root.name }}'}\n": (
        "flow.yml:2:14: with.name: '${{ root.name }}' refers to another key of the file; "
        "write the value, or use a YAML anchor (&name, *name)"
    ),
    HEAD + "with: {name: '${{ SECRET.x }}'}\n": (
        "flow.yml:2:14: with.name: '${{ SECRET.x }}' is no variable; write ${{ ENV.NAME }} or ${{ CONTEXT.name }}"
    ),
    HEAD + "with: {name: '${A:-b}'}\n": (
        "flow.yml:2:14: with.name: '${A:-b}' is no variable; write ${{ ENV.NAME }} (a literal dollar is $$)"
    ),
    HEAD + "with: {replicas: '${{ ENV.NAME }}'}\n": (
        "flow.yml:2:8: with.replicas: expected a positive integer, got 'value'"
    ),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.items(), ids=[message[:70] for message in MISTAKES.values()])
def test_one_mistake_one_line(text: str, message: str) -> None:
    assert mistakes(text, env={"NAME": "value"}) == [message]


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    found = mistakes(
        """\
        jtype: Flow
        with:
          prot: grpc
          retries: x
          env: {A: $NOTHING}
        executors:
          - name: a
            replicas: two
            need: b
          - nam: b
            shards: 0
          - needs: [c, a]
          - name: a
            name: d
          - name: a
        """,
        env={},
    )
    assert [line.split(": ", 2)[:2] for line in found] == [
        ["flow.yml:3:3", "with.prot"],
        ["flow.yml:4:3", "with.retries"],
        ["flow.yml:5:12", "with.env.A"],
        ["flow.yml:8:5", "executors[0].replicas"],
        ["flow.yml:9:5", "executors[0].need"],
        ["flow.yml:10:5", "executors[1].nam"],
        ["flow.yml:11:5", "executors[1].shards"],
        ["flow.yml:12:5", "executors[2].needs"],
        ["flow.yml:13:5", "executors[3].name"],
        ["flow.yml:14:5", "executors[3].name"],
        ["flow.yml:15:5", "executors[4].name"],
    ]


def test_the_error_is_a_configuration_error_also_when_it_travels() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_flow("")
    assert isinstance(error_from_name(caught.value.name, str(caught.value)), ConfigurationError)
    finding = caught.value.findings[0]  # type: ignore[attr-defined]
    assert (finding.file, finding.line, finding.column, finding.severity) == ("<flow>", 1, 1, "error")
    assert finding.as_dict()["message"].startswith("the file is empty")


def test_an_alias_bomb_is_refused() -> None:
    lines = [f"x-{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]" for level in range(1, 8)]
    found = mistakes("\n".join(["jtype: Flow", "x-0: &l0 [a]", *lines]))
    assert len(found) == 1
    assert "do aliases repeat each other?" in found[0]


# ---- files ----


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    absent, folder, latin = tmp_path / "a.yml", tmp_path / "folder", tmp_path / "latin.yml"
    folder.mkdir()
    latin.write_bytes("jtype: Flow\nwith: {name: é}\n".encode("latin-1"))
    for path, message in [
        (absent, f"{absent}: there is no such file"),
        (folder, f"{folder}: cannot be read: Is a directory"),
        (latin, f"{latin}:2:14: not UTF-8: byte 0xe9; save the file as UTF-8"),
        (Path("a\0b"), "a\0b: cannot be read: embedded null byte"),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            load_flow(path)
        assert str(caught.value) == message


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "flow.yml"
    path.write_bytes(b"\xef\xbb\xbfjtype: Flow\r\nwith: {name: a}\r\n")
    assert load_flow(str(path)).name == "a"


def test_default_flow_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_flow_path() == ROOT / "flow.yml"
    (tmp_path / "flow.yml").write_text("jtype: Flow")
    assert default_flow_path() == Path("flow.yml")

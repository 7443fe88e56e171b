"""Loading executors from entries of a flow file."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

import pytest
from jina import Executor

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow import parse_flow
from flowdex_orchestrator.worker.load import load_executor

MINE = """
from dataclasses import dataclass
from jina import Executor, requests


class Mine(Executor):
    def __init__(self, value=None, **kwargs):
        super().__init__(**kwargs)
        self.value = value

    @requests(on="/a")
    def a(self, **kwargs):
        pass

    def b(self, **kwargs):
        pass


@dataclass
class Data(Executor):
    value: int = 3


class NotAnExecutor:
    pass
"""


@pytest.fixture
def folder(tmp_path) -> Iterator:
    (tmp_path / "mine.py").write_text(MINE)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def load(folder, entry: str, **more) -> Executor:
    text = "jtype: Flow\nexecutors:\n  - name: tested\n" + textwrap.indent(textwrap.dedent(entry).strip(), "    ")
    return load_executor(parse_flow(text).executor("tested"), folder, **more)


def test_a_class_of_a_file_with_its_arguments(folder):
    executor = load(
        folder,
        """
        uses: Mine
        py_modules: [mine.py]
        uses_with:
          value: {text: "Hello!World jtype: X", number: "12", list: [1, 2.5]}
        uses_metas: {name: renamed}
        uses_requests: {/b: b}
        replicas: 2
        workspace: ./files
        """,
        replica=1,
    )
    assert executor.value == {"text": "Hello!World jtype: X", "number": "12", "list": [1, 2.5]}
    assert executor.metas.name == "renamed"
    assert {"/a", "/b"} <= set(executor.requests)
    assert executor.runtime_args.name == "tested/rep-1"
    assert executor.runtime_args.replicas == 2
    assert executor.runtime_args.shard_id == 0
    assert executor.workspace.startswith("./files") or "/files/" in executor.workspace


@pytest.mark.parametrize("uses", ["mine.Mine", "Mine"])
def test_a_file_is_imported_once(folder, uses):
    first = load(folder, f"uses: {uses}\npy_modules: [mine.py]")
    second = load(folder, f"uses: {uses}\npy_modules: [mine.py]")
    assert type(first) is type(second)


def test_a_file_does_not_take_the_place_of_an_imported_module(folder):
    import json

    (folder / "json.py").write_text(MINE)
    executor = load(folder, "uses: Mine\npy_modules: [json.py]")
    assert type(executor).__name__ == "Mine"
    assert sys.modules["json"] is json


def test_a_package_of_the_flows_folder(folder):
    package = folder / "my_package"
    package.mkdir()
    (package / "helper.py").write_text("VALUE = 5\n")
    (package / "__init__.py").write_text("from .helper import VALUE\n" + MINE)
    assert load(folder, "uses: Mine\npy_modules: [my_package]").value is None


def test_a_dataclass(folder):
    assert load(folder, "uses: Data\npy_modules: [mine.py]\nuses_with: {value: 7}").value == 7


def test_a_module_path(folder):
    assert type(load(folder, "uses: flowdex_executors.ranker.Ranker")).__name__ == "Ranker"
    assert type(load(folder, "uses: flowdex_executors.Ranker")).__name__ == "Ranker"


def test_a_bare_name_is_one_of_flowdexs_own_unless_the_flow_has_it(folder):
    assert type(load(folder, "uses: Ranker")).__module__ == "flowdex_executors.ranker.executor"
    assert type(load(folder, "uses: Ranker\npy_modules: [mine.py]")).__module__ == "flowdex_executors.ranker.executor"
    (folder / "other.py").write_text(MINE.replace("Mine", "Ranker"))
    assert type(load(folder, "uses: Ranker\npy_modules: [other.py]")).__module__ == "other"
    with pytest.raises(ConfigurationError, match=r"uses: BertEncodr is no executor of flowdex \(did you mean BertEn"):
        load(folder, "uses: BertEncodr")


def test_without_uses_it_is_jinas_executor_that_returns_what_it_gets(folder):
    assert type(load(folder, "")) is Executor


def test_a_configuration_file(folder):
    (folder / "config.yml").write_text("jtype: Mine\nwith: {value: 1}\nmetas: {name: named}\npy_modules: [mine.py]\n")
    assert load(folder, "uses: config.yml").value == 1
    assert load(folder, "uses: config.yml\nuses_with: {value: 2}").value == 2
    assert load(folder, "uses: config.yml").metas.name == "named"


def test_an_inline_configuration(folder):
    entry = "uses: {jtype: Mine, with: {value: 4}}\npy_modules: [mine.py]"
    assert load(folder, entry).value == 4


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("uses: docker://mine", "container"),
        ("uses: jinaai://a/b:latest", "external"),
        ("uses: Mine", "py_modules"),
        ("uses: Mime\npy_modules: [mine.py]", "did you mean Mine"),
        ("uses: flowdex_executors.Rankr", "did you mean Ranker"),
        ("uses: Missing\npy_modules: [mine.py]", "it has Data, Mine"),
        ("uses: NotAnExecutor\npy_modules: [mine.py]", "subclass of jina.Executor"),
        ("uses: Mine\npy_modules: [missing.py]", "no file"),
        ("uses: missing.yml", "no file"),
    ],
)
def test_what_cannot_be_found_is_named(folder, entry, says):
    with pytest.raises(ConfigurationError, match=says):
        load(folder, entry)


@pytest.mark.parametrize(
    ("source", "error"),
    [("import not_there_at_all", ModuleNotFoundError), ("class", SyntaxError), ("1 / 0", ZeroDivisionError)],
)
@pytest.mark.parametrize("uses", ["Broken", "broken.yml"])
def test_the_cause_of_a_failing_module_is_not_hidden(folder, source, error, uses):
    (folder / "broken.py").write_text(source)
    (folder / "broken.yml").write_text("jtype: Broken\npy_modules: [broken.py]\n")
    modules = "py_modules: [broken.py]" if uses == "Broken" else ""
    with pytest.raises(error):
        load(folder, f"uses: {uses}\n{modules}")


POSTPONED = """
from __future__ import annotations
from docarray import DocList
from docarray.documents import TextDoc
from jina import Executor, requests
from flowdex_executors import DocumentColumns
if False:
    from nowhere import Unknown


class Postponed(Executor):
    @requests(on="/columns")
    def columns(self, docs: DocumentColumns, **kwargs) -> DocumentColumns: ...

    @requests(on="/texts", response_schema=DocumentColumns)
    def texts(self, docs: DocList[TextDoc], parameters: dict, **kwargs): ...

    @requests(on="/unknown")
    def unknown(self, docs: Unknown, **kwargs) -> Unknown: ...
"""


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_postponed_annotations_mean_what_they_say(folder):
    from docarray import DocList
    from docarray.documents import TextDoc

    from flowdex_executors import DocumentColumns

    (folder / "postponed.py").write_text(POSTPONED)
    requests = load(folder, "uses: Postponed\npy_modules: [postponed.py]").requests
    assert requests["/columns"].request_schema is DocumentColumns
    assert requests["/columns"].response_schema is DocumentColumns
    assert requests["/texts"].request_schema == DocList[TextDoc]
    assert requests["/texts"].response_schema is DocumentColumns
    assert requests["/unknown"].request_schema.doc_type.__name__ == "LegacyDocumentJina"

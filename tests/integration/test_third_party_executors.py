"""Executors as others publish them, folders with a config.yml, in a flowdex flow: unmodified, checked and run.

The two here have the shapes of Jina's hub: one with a helper module, constructor arguments and metas; one a package,
with asynchronous endpoints, parameters, a document class of its own and an endpoint for everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flow_support import RunningFlow, run_flowdex, start_flow, stop_flow

pytest.importorskip("jina")
pytestmark = pytest.mark.timeout(300)

CLEANER = {
    "config.yml": """
jtype: TextCleaner
py_modules:
  - helper.py
  - executor.py
with:
  lower: false
metas:
  name: TextCleaner
  description: Puts texts on one line
  url: https://example.org/executor-text-cleaner
  keywords: [text, cleaning]
""",
    "requirements.txt": "",
    "helper.py": """
def squeeze(text):
    return " ".join(text.split())
""",
    "executor.py": """
from typing import Dict, Optional

from docarray import DocList
from docarray.documents import TextDoc
from helper import squeeze
from jina import Executor, requests


class TextCleaner(Executor):
    def __init__(self, lower: bool = True, suffix: str = "", *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lower = lower
        self.suffix = suffix

    @requests(on=["/clean", "/score"])
    def clean(self, docs: DocList[TextDoc], parameters: Optional[Dict] = None, **kwargs) -> DocList[TextDoc]:
        lower = (parameters or {}).get("lower", self.lower)
        for doc in docs:
            doc.text = squeeze(doc.text) + self.suffix
            if lower:
                doc.text = doc.text.lower()
        return docs

    @requests(on="/name")
    def name(self, docs, **kwargs):
        return {"name": self.metas.name, "replica": self.runtime_args.replica_id}
""",
}
SCORER = {
    "config.yml": """
jtype: LengthScorer
metas:
  name: LengthScorer
  py_modules:
    - scorer/__init__.py
requests:
  /longest: longest
""",
    "scorer/__init__.py": """
from .executor import LengthScorer
""",
    "scorer/documents.py": """
from typing import Dict

from docarray import BaseDoc


class Scored(BaseDoc):
    text: str = ""
    scores: Dict[str, float] = {}
    seen_by: str = ""
""",
    "scorer/executor.py": """
import asyncio

from docarray import DocList
from docarray.documents import TextDoc
from jina import Executor, requests

from .documents import Scored


class LengthScorer(Executor):
    @requests(on="/score")
    async def score(self, docs: DocList[TextDoc], parameters: dict = {}, **kwargs) -> DocList[Scored]:
        await asyncio.sleep(0.01)
        weight = parameters.get("weight", 1.0)
        return DocList[Scored]([Scored(id=d.id, text=d.text, scores={"score": weight * len(d.text)}) for d in docs])

    async def longest(self, docs: DocList[TextDoc], **kwargs) -> DocList[TextDoc]:
        return DocList[TextDoc](sorted(docs, key=lambda doc: -len(doc.text))[:1])

    @requests
    def other(self, docs: DocList[Scored], **kwargs) -> DocList[Scored]:
        for doc in docs:
            doc.seen_by = "default"
        return docs
""",
}
FLOW = """
jtype: Flow
version: '1'
with:
  name: third-party
  protocol: [grpc, http]
  port: [51000, 8080]
executors:
  - name: cleaner
    uses: executors/text-cleaner
    uses_with: {suffix: "."}
  - name: scorer
    uses: executors/length-scorer/config.yml
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFlow]:
    folder = tmp_path_factory.mktemp("third-party")
    write(folder / "executors" / "text-cleaner", CLEANER)
    write(folder / "executors" / "length-scorer", SCORER)
    running = start_flow(folder, FLOW)
    yield running
    stop_flow(running)


def post(flow: RunningFlow, endpoint: str, *texts: str, **parameters: Any) -> dict[str, Any]:
    body = {"execEndpoint": endpoint, "data": [{"text": text} for text in texts], "parameters": parameters}
    reply = httpx.post(f"{flow.http_url}/post", json=body, timeout=60, trust_env=False)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_endpoints_parameters_and_arguments_of_both(flow: RunningFlow) -> None:
    cleaned = post(flow, "/score", " Two  Words\n", weight=2)
    assert [route["executor"] for route in cleaned["routes"]] == ["gateway", "cleaner", "scorer"]
    assert cleaned["data"][0]["text"] == "Two Words."
    assert cleaned["data"][0]["scores"] == {"score": 20.0}
    assert post(flow, "/clean", " Two  Words", lower=True)["data"][0]["text"] == "two words."


def test_metas_a_rebound_endpoint_and_the_default_one(flow: RunningFlow) -> None:
    name = post(flow, "/name")["parameters"]["__results__"]["cleaner"]
    assert name == {"name": "TextCleaner", "replica": 0}
    assert [doc["text"] for doc in post(flow, "/longest", "a", "abc", "ab")["data"]] == ["abc"]
    assert post(flow, "/anything", "a")["data"][0]["seen_by"] == "default"


def test_what_a_check_says_of_what_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "flow.yml").write_text(
        "jtype: Flow\nexecutors:\n  - {name: a, uses: ./empty}\n  - {name: b, uses: 'jinahub://CLIPEncoder'}\n"
    )
    done = run_flowdex("check", str(tmp_path / "flow.yml"))
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "the folder ./empty has no config.yml" in said
    assert "names a package of Jina's hub, which flowdex does not download" in said
    assert "write `uses: FOLDER`" in said

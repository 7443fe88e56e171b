"""The text of a starter flow file, from three answers.

what for, which encoder, where the index lives --Starter--> flow.yml with comments

search            segmenter -> encoder -> indexer -> ranker
encode            encoder
bert-as-service   encoder, behind the protocol of bert-as-service too
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow.yaml_reader import resolve_scalar

__all__ = ["ENCODERS", "PURPOSES", "EncoderChoice", "Starter", "check_index", "flow_name", "read_encoder"]

PURPOSES: Mapping[str, str] = {
    "search": "documents in, hits out",
    "encode": "texts to vectors, no index",
    "bert-as-service": "texts to vectors, for clients of bert-as-service too",
}
"""What a flow is for, and what that means."""

ENCODERS: Mapping[str, str] = {
    "minilm": "all-MiniLM-L6-v2, a small BERT that comes with flowdex",
    "glove": "GloVe word vectors, no neural network: thousands of texts a second",
    "MODEL": "any transformer encoder: its folder, or its id on the model hub",
    "gpt=MODEL": "OpenAI GPT, GPT-2 or another decoder: its folder, or its id on the model hub",
    "elmo=FOLDER": "ELMo: the folder of its options.json and weights.hdf5",
    "ulmfit=FOLDER": "ULMFiT: the folder of fastai's .pth and .pkl files",
    "words=FILE": "word vectors of your own: word2vec, GloVe or fastText",
}
"""How an encoder is named, and what it is."""

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./:@+~-]*")
_INDEX_URI = re.compile(r"(https?|grpcs?)://[^\s@]+")
_OWN = "flowdex_executors."
_STOCK_GATEWAY = [
    "gateway:                        # what stock Jina would run: `jina flow --uses flow.yml`",
    "  uses: flowdex_orchestrator.jina_gateway.FlowdexGateway",
]


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder of a starter flow.

    Attributes:
        label: A short name for it; names the collection.
        uses: Its class, without the package.
        about: What the file says beside it.
        options: Its arguments.
        tokenizer: What the segmenter counts by; None for the default model's.
        layers: Whether it has layers and special tokens as BERT has, so that bert-as-service's defaults mean something.
    """

    label: str
    uses: str
    about: str
    options: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    layers: bool = True


def read_encoder(answer: str, folder: Path) -> EncoderChoice:
    """The encoder that an answer names; see `ENCODERS`.

    Args:
        answer: A name, KIND=PLACE, a folder or a hub id. A relative place starts from the working directory.
        folder: Where the flow file will be: what is inside it is named relative to it.

    Raises:
        ConfigurationError: Files are not where the answer says, or it names none.
    """
    answer = answer.strip()
    kind, separator, place = answer.partition("=")
    if answer in ("", "minilm", "default"):
        return EncoderChoice("minilm", "BertEncoder", "all-MiniLM-L6-v2, 384 dimensions")
    if answer == "glove":
        return EncoderChoice("glove", "WordVectorEncoder", "GloVe, 50 dimensions", layers=False)
    if not separator and kind not in _KINDS:
        model = _model(answer, folder)
        return EncoderChoice(_label(answer), "BertEncoder", "a transformer encoder", {"model": model}, model)
    if kind not in _KINDS:
        raise ConfigurationError(f"{answer!r} names no encoder; choose from {', '.join(ENCODERS)}")
    if not place:
        named = next(name for name in ENCODERS if name.startswith(f"{kind}="))
        raise ConfigurationError(f"{kind}: say where it is: {named}")
    return _KINDS[kind](place, folder)


def check_index(answer: str) -> str:
    """`embedded`, `none`, or the URL of a Qdrant server.

    Raises:
        ConfigurationError: It is none of these.
    """
    answer = answer.strip()
    if answer in ("embedded", "none") or _INDEX_URI.fullmatch(answer):
        return answer
    raise ConfigurationError(
        f"{answer!r} is no place for an index: write embedded, or the URL of a Qdrant server without credentials, "
        "such as http://127.0.0.1:6333 or grpcs://qdrant.example.org:6334"
    )


def flow_name(folder: Path) -> str:
    """A name for the flow in a folder: the folder's, in letters, digits and hyphens."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")[:40].strip("-")
    return name if name and name[0].isalpha() else "flowdex"


@dataclass(frozen=True)
class Starter:
    """A starter flow.

    Attributes:
        name: Of the flow.
        purpose: One of `PURPOSES`.
        encoder: What makes the vectors.
        index: "embedded", a Qdrant server's URL, or "none".

    Raises:
        ConfigurationError: Purpose and index contradict each other.
    """

    name: str
    purpose: str
    encoder: EncoderChoice
    index: str

    def __post_init__(self) -> None:
        if self.purpose == "search" and self.index == "none":
            raise ConfigurationError("a flow for search needs an index: embedded, or the URL of a Qdrant server")
        if self.purpose != "search" and self.index != "none":
            raise ConfigurationError(f"a flow for {self.purpose} keeps no index: leave it out, or say none")

    def text(self) -> str:
        """The flow file."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> list[str]:
        bert = self.purpose == "bert-as-service"
        protocols, ports = ("grpc, http, bert", "51000, 8080, 5555") if bert else ("grpc, http", "51000, 8080")
        executors = self._executors()
        return [
            f"# {self.name}: {PURPOSES[self.purpose]}. `flowdex check` finds mistakes here, `flowdex up` starts it.",
            "# Every key: docs/flows.md. For an editor's help: flowdex schema -o flow-schema.json",
            "jtype: Flow",
            "version: '1'",
            "with:",
            f"  name: {_scalar(self.name)}",
            f"  protocol: [{protocols}]",
            f"  port: [{ports}]" + ("     # bert's replies are on the next port, 5556" if bert else ""),
            "  # host: 0.0.0.0               # to be reached from elsewhere, with keys: see docs/security.md",
            *(self._bert() if bert else _STOCK_GATEWAY),
            "executors:",
            *executors,
        ]

    def _bert(self) -> list[str]:
        if not self.encoder.layers:
            return ["gateway:", "  bert:", "    pooling_strategy: ENCODER   # vectors as the encoder makes them"]
        return [
            "gateway:",
            "  bert:                       # the flags of bert-serving-start, see docs/migrate/bert-as-service.md",
            "    max_seq_len: 25",
            "    pooling_layer: [-2]",
            "    pooling_strategy: REDUCE_MEAN",
        ]

    def _executors(self) -> list[str]:
        encoder = _executor("encoder", self.encoder.uses, f"texts -> vectors: {self.encoder.about}")
        encoder += _arguments(self.encoder.options)
        encoder.append("    # replicas: 2               # more of it, to share the load")
        if self.purpose != "search":
            return encoder
        segmenter = _executor("segmenter", "Segmenter", "documents -> passages that fit the encoder")
        if self.encoder.tokenizer is not None:
            segmenter += _arguments({"tokenizer": self.encoder.tokenizer})
        return [
            *segmenter,
            *encoder,
            *self._indexer(),
            *_executor("ranker", "Ranker", "passages -> documents"),
            "    # uses_with:                # a second, closer look at the best hits",
            "    #   rerank: late_interaction",
        ]

    def _indexer(self) -> list[str]:
        if self.index == "embedded":
            return [
                *_executor("indexer", "QdrantIndexer", "passages -> index, queries -> passages"),
                *_arguments({"uri": "edge://.flowdex/index", "collection": self.encoder.label}),
            ]
        return [
            *_executor("indexer", "QdrantIndexer", "passages -> a Qdrant server; stateless, so it may have replicas"),
            *_arguments({"uri": self.index, "collection": self.encoder.label}),
            "      # api_key: ${{ ENV.QDRANT_API_KEY }}",
        ]


def _executor(name: str, uses: str, about: str) -> list[str]:
    return [f"  - name: {name:<21} # {about}", f"    uses: {_OWN}{uses}"]


def _arguments(options: Mapping[str, str]) -> list[str]:
    return ["    uses_with:", *(f"      {key}: {_scalar(value)}" for key, value in options.items())] if options else []


def _scalar(text: str) -> str:
    """A text as YAML that reads as this text, with no variable in it."""
    if _PLAIN.fullmatch(text) and resolve_scalar(text) == text and not text.endswith(":"):
        return text
    return json.dumps(text.replace("$", "$$"), ensure_ascii=False)


def _label(model: str) -> str:
    """The last part of a model's name, as a collection may be called."""
    last = _absolute(model).name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-_.")[:60] or "flowdex"


def _model(answer: str, folder: Path) -> str:
    """A model's folder, or its hub id as it is."""
    return _place(answer, folder) if Path(answer).expanduser().is_dir() else answer


def _place(path: str, folder: Path) -> str:
    """A path as the flow's processes, which run in `folder`, will find it."""
    found = _absolute(path)
    try:
        return f"./{found.relative_to(_absolute(folder))}"
    except ValueError:
        return str(found)


def _absolute(path: str | Path) -> Path:
    """Without `..`, and links as they are."""
    return Path(os.path.normpath(Path(path).expanduser().absolute()))


def _files(place: str, patterns: Mapping[str, str], folder: Path) -> dict[str, str]:
    found = {}
    source = Path(place).expanduser()
    if not source.is_dir():
        raise ConfigurationError(f"there is no folder {place!r}")
    for name, pattern in patterns.items():
        files = sorted(source.glob(pattern))
        if len(files) != 1:
            many = ", ".join(file.name for file in files[:4]) or "none"
            raise ConfigurationError(f"{place} must hold one file {pattern}, it has {many}")
        found[name] = _place(str(files[0]), folder)
    return found


# ---- kinds of encoders ----


def _gpt(place: str, folder: Path) -> EncoderChoice:
    model = _model(place, folder)
    return EncoderChoice(_label(place), "GptEncoder", "a transformer decoder", {"model": model}, model, layers=False)


def _elmo(place: str, folder: Path) -> EncoderChoice:
    files = _files(place, {"options": "*options.json", "weights": "*weights.hdf5"}, folder)
    return EncoderChoice("elmo", "ElmoEncoder", "ELMo", files, layers=False)


def _ulmfit(place: str, folder: Path) -> EncoderChoice:
    files = _files(place, {"weights": "*.pth", "vocabulary": "*.pkl"}, folder)
    return EncoderChoice("ulmfit", "UlmfitEncoder", "ULMFiT", files, layers=False)


def _words(place: str, folder: Path) -> EncoderChoice:
    if not Path(place).expanduser().is_file():
        raise ConfigurationError(f"there is no file {place!r}")
    file = {"model": _place(place, folder)}
    return EncoderChoice(_label(place), "WordVectorEncoder", "word vectors", file, layers=False)


_KINDS: Mapping[str, Callable[[str, Path], EncoderChoice]] = {
    "gpt": _gpt,
    "elmo": _elmo,
    "ulmfit": _ulmfit,
    "words": _words,
}

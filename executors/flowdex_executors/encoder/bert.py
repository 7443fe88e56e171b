"""BertEncoder: BERT and every other transformer encoder, from a folder or the hub.

    text -> the model's tokenizer -> a backend's forward pass -> pooling -> L2 norm

Pooling and normalisation are what the model's own sentence-transformers files say.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flowdex.errors import ConfigurationError, InvalidInput
from flowdex_executors.encoder.attention import AttentionModel
from flowdex_executors.encoder.backend import COMPUTE_DTYPES, Backend, choose_device
from flowdex_executors.encoder.base import available_cores, check_options
from flowdex_executors.encoder.ctranslate2_backend import CTranslate2Backend
from flowdex_executors.encoder.fingerprint import digest_files
from flowdex_executors.encoder.mixed_bert import MixedBert
from flowdex_executors.encoder.model_files import ModelFiles, NotDownloaded, read_model
from flowdex_executors.encoder.onnx_backend import load_onnx
from flowdex_executors.encoder.onnx_runtime import onnx_installed
from flowdex_executors.encoder.packed_bert import PackedBert
from flowdex_executors.encoder.token_encoder import TokenEncoder
from flowdex_executors.encoder.tokenising import TextTokenizer
from flowdex_executors.encoder.transformers_backend import TransformersBackend

__all__ = ["BertEncoder"]

_BACKENDS = ("auto", "packed", "transformers", "onnx", "ctranslate2")
_QUANTISABLE = ("onnx", "ctranslate2")


class BertEncoder(TokenEncoder):
    """Encodes texts with a transformer encoder.

    Args:
        model: None or "default" for all-MiniLM-L6-v2 from its package, a folder, or a hub id.
        max_length: Longest sequence in tokens, special tokens included; None for the model's own limit.
        pooling: None for the model's own; else see `EncodeParameters`, as for all that a request may choose.
        normalize: Whether to scale vectors to length 1; None for the model's own.
        backend: "packed" (no padding; BERT, RoBERTa, XLM-R, CamemBERT, DistilBERT), "onnx" (ONNX Runtime: soonest for
            short texts), "transformers" (any model), "ctranslate2" (last layer only), or "auto": packed, with short
            batches on ONNX Runtime where that is installed and computes on the CPU, else transformers.
        quantization: "int8" computes matrix products in 8 bits, with the backends "onnx" and "ctranslate2" on the CPU:
            faster, but the vectors are not the model's own and must not meet them in one index.
        prompts: Texts that go before the text, by name, beside the model's own; see `TokenEncoder`.
        prompt: Name of the one that /encode uses where a request names none; None for the model's own default.
        device: "auto" (a GPU if there is one), "cpu" or "cuda:N".
        compute_dtype: "float32", or for a GPU "float16" or "bfloat16", with the backends "packed" and "transformers".
        threads: Compute threads; None for as many as there are cores, or one on a GPU.
        **options: What `TokenEncoder` takes: `layers`, `truncation`, `dimensions`, `dtype`, `batch_tokens`, ...

    Raises:
        ConfigurationError: The model cannot be found or loaded, or an option does not fit it.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        max_length: int | None = None,
        pooling: str | Sequence[str] | None = None,
        normalize: bool | None = None,
        backend: str = "auto",
        quantization: str | None = None,
        prompts: Mapping[str, str] | None = None,
        prompt: str | None = None,
        device: str = "auto",
        compute_dtype: str = "float32",
        threads: int | None = None,
        **options: Any,
    ) -> None:
        files = _read(model, backend)
        max_tokens = _max_tokens(files, max_length)
        device = choose_device(device)
        threads = 1 if threads is None and device != "cpu" else threads
        super().__init__(
            tokenizer=TextTokenizer(files),
            backend=_load(
                files, backend, device, quantization=quantization, threads=threads, compute_dtype=compute_dtype
            ),
            model=files.name,
            max_tokens=max_tokens,
            pooling=files.pooling if pooling is None else pooling,
            normalize=files.normalize if normalize is None else bool(normalize),
            prompts={**files.prompts, **(prompts or {})},
            prompt=files.prompt if prompt is None else prompt,
            device=device,
            compute_dtype=compute_dtype,
            threads=threads,
            fingerprint_parts={**files.digests, **_parts(files, backend, quantization)},
            attention_model=_attention_model(files, device, compute_dtype),
            **options,
        )

    def about(self) -> dict[str, Any]:
        """What `/status` says about the model; `lossy` where the backend's vectors are not the model's own."""
        return {**super().about(), "lossy": getattr(self.backend, "lossy", False)}

    @classmethod
    def describe(cls, uses_with: Mapping[str, Any]) -> dict[str, Any]:
        """Model, dimensions, max_tokens, pooling and normalize for these options, from configuration files alone.

        Of a hub id that is yet to be downloaded, only the name is known.

        Raises:
            ConfigurationError: The model cannot be found, or an option does not fit it.
        """
        try:
            files = read_model(uses_with.get("model"), download=False)
        except NotDownloaded:
            return {"model": uses_with["model"]}
        layers = int(files.config.get("num_hidden_layers") or files.config.get("n_layers") or 0)
        sizes = (files.hidden_size,) * (layers + 1)
        return {
            "model": files.name,
            "max_tokens": _max_tokens(files, uses_with.get("max_length")),
            **cls.describe_vectors(uses_with, sizes, pooling=files.pooling, normalize=files.normalize),
        }

    @classmethod
    def check(cls, uses_with: Mapping[str, Any], context: Any = None) -> list[str]:
        """Problems of these options that can be known before start, as sentences; beyond what `describe` raises."""
        problems = [f"{name}: {problem}" for name, problem in check_options(uses_with).items()]
        backend = uses_with.get("backend", "auto")
        if backend not in _BACKENDS:
            problems.append(f"backend: {backend!r} is unknown; choose from {', '.join(_BACKENDS)}")
        if problem := _check_quantization(uses_with.get("quantization"), backend):
            problems.append(problem)
        if uses_with.get("compute_dtype", "float32") not in COMPUTE_DTYPES:
            problems.append(f"compute_dtype: {uses_with['compute_dtype']!r} is unknown; choose from {COMPUTE_DTYPES}")
        try:
            files = read_model(uses_with.get("model"), download=False)
        except NotDownloaded as error:
            return [*problems, f"model: {error.message}"] if _offline() else problems
        if problem := _check_files(files, backend):
            problems.append(f"model: {problem}")
        elif not PackedBert.supports(files) and (
            backend in ("packed", "ctranslate2") or (backend == "onnx" and files.onnx_file is None)
        ):
            problems.append(f"backend: {backend} cannot compute {files.name!r} ({files.model_type}); use transformers")
        return problems


def _read(model: str | None, backend: str) -> ModelFiles:
    """The model's files, with its own .onnx file where that is what will compute it."""
    files = read_model(model)
    needs_file = backend == "onnx" and not PackedBert.supports(files) and files.onnx_file is None
    return read_model(model, onnx=True) if needs_file else files


def _check_files(files: ModelFiles, backend: str) -> str | None:
    if files.reads == "decoder":
        return (
            f"{files.name} ({files.model_type}) is a decoder, in which a token sees only those before it; name an "
            "encoder, or use uses: flowdex_executors.GptEncoder, which pools for that"
        )
    if not files.has_weights and not (backend == "onnx" and files.onnx_file is not None):
        return f"{files.path} holds no weights (model.safetensors or pytorch_model.bin)"
    return None


def _offline() -> bool:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)


def _max_tokens(files: ModelFiles, asked: int | None) -> int:
    if asked is None:
        return files.max_tokens
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 3:
        raise ConfigurationError(f"max_length must be a whole number of at least 3 tokens, got {asked!r}")
    if files.max_positions is not None and asked > files.max_positions:
        raise ConfigurationError(f"max_length {asked} is more than the {files.max_positions} positions of {files.name}")
    return asked


def _check_quantization(quantization: Any, backend: str) -> str | None:
    if quantization not in (None, "int8"):
        return f"quantization: {quantization!r} is unknown; leave it out, or choose int8"
    if quantization is not None and backend not in _QUANTISABLE:
        return f"quantization: the backend {backend} computes exactly; choose {' or '.join(_QUANTISABLE)} for int8"
    return None


def _parts(files: ModelFiles, backend: str, quantization: Any) -> dict[str, Any]:
    """What a backend adds to the fingerprint: nothing where it gives the model's own vectors."""
    if quantization is not None:
        return {"quantization": f"{quantization} by {backend}"}  # each rounds in its own way
    file = files.onnx_file if backend == "onnx" and not PackedBert.supports(files) else None
    return {} if file is None else {"onnx": digest_files(file)}


def _attention_model(files: ModelFiles, device: str, compute_dtype: str) -> AttentionModel | None:
    """What gives the attention of a model whose backend does not; None where its files do not say its size."""
    config = files.config
    layers, heads = (
        config.get(name) or config.get(older)
        for name, older in (("num_hidden_layers", "n_layers"), ("num_attention_heads", "n_heads"))
    )
    if layers is None or heads is None:
        return None

    def load() -> Backend:
        if PackedBert.supports(files):
            return PackedBert(files, device, compute_dtype)
        if not files.has_weights:
            raise InvalidInput(
                f"attention is computed from a model's weights, and {files.path} holds an .onnx file only: put "
                "model.safetensors or pytorch_model.bin beside it"
            )
        return TransformersBackend(files, device, compute_dtype)

    return AttentionModel((int(layers), int(heads)), load)


def _load(
    files: ModelFiles, backend: str, device: str, *, quantization: Any, threads: int | None, compute_dtype: str
) -> Backend:
    if backend not in _BACKENDS:
        raise ConfigurationError(f"backend {backend!r} is unknown; choose from {', '.join(_BACKENDS)}")
    if problem := _check_quantization(quantization, backend):
        raise ConfigurationError(problem)
    if problem := _check_files(files, backend):
        raise ConfigurationError(problem)
    if backend == "packed" and not PackedBert.supports(files):
        raise ConfigurationError(
            f"the packed backend cannot compute model {files.name!r} ({files.model_type}); use backend: transformers"
        )
    if backend in _QUANTISABLE and compute_dtype != "float32":
        raise ConfigurationError(
            f"compute_dtype: the backend {backend} computes in float32; use packed or transformers"
        )
    if backend == "onnx":
        return load_onnx(files, device, int8=quantization is not None)
    if backend == "ctranslate2":
        return CTranslate2Backend(files, device, threads=threads or available_cores(), int8=quantization is not None)
    if backend == "transformers" or not PackedBert.supports(files):
        return TransformersBackend(files, device, compute_dtype)
    if backend == "auto" and device == "cpu" and compute_dtype == "float32" and onnx_installed():
        return MixedBert(files)
    return PackedBert(files, device, compute_dtype)

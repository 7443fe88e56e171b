"""ONNX Runtime: sessions on the CPU or a GPU; of one thread an operation, unless they are for a short text alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["onnx_installed", "require_onnxruntime", "start_session"]

_ERRORS_ONLY = 3


def onnx_installed() -> bool:
    """Whether what the extra `onnx` installs is there."""
    return all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


def require_onnxruntime() -> Any:
    """The module, without its telemetry: from 1.29 on it reports processes, models and runs to Microsoft by default.

    `ORT_DISABLE_TELEMETRY=0` in the environment leaves that on.

    Raises:
        ConfigurationError: It is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when the module is imported
    try:
        import onnxruntime
    except ImportError:
        raise ConfigurationError(
            "ONNX Runtime is not installed: run pip install 'flowdex[onnx]' (for a GPU, put onnxruntime-gpu in the "
            "place of onnxruntime), or choose another backend"
        ) from None
    return onnxruntime


def start_session(
    model: bytes | Path,
    device: str = "cpu",
    weights: Mapping[str, npt.NDArray[Any]] | None = None,
    *,
    threads: int = 1,
) -> Any:
    """Load a model.

    Args:
        model: The file, or its content.
        device: "cpu", "cuda" or "cuda:N".
        weights: Tensors that the model names as external; used where they lie, so they must not change.
        threads: Of an operation, the caller's included.

    Returns:
        An `onnxruntime.InferenceSession`; its `run` may be called from several threads at the same time.

    Raises:
        ConfigurationError: The model cannot be loaded, or this build of ONNX Runtime has no support for the device.
    """
    ort = require_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.enable_mem_pattern = False  # plans memory for each new shape, and shapes are always new here
    if weights:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    try:
        return ort.InferenceSession(
            str(model) if isinstance(model, Path) else model, options, providers=_providers(ort, device)
        )
    except ConfigurationError:
        raise
    except Exception as error:  # its errors share no other base
        name = model if isinstance(model, Path) else "the model"
        raise ConfigurationError(f"ONNX Runtime cannot load {name}: {error}") from None


def _providers(ort: Any, device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ConfigurationError(
            f"device {device!r}: this ONNX Runtime computes on the CPU only; install onnxruntime-gpu in its place, or "
            "set device: cpu"
        )
    number = device.partition(":")[2] or "0"
    return [("CUDAExecutionProvider", {"device_id": int(number)}), "CPUExecutionProvider"]

"""Loading a folder with transformers, without anything that runs what the folder holds.

load_pretrained(AutoModel, files) --local, weights alone, no code of the folder--> model, what was missing
"""

from __future__ import annotations

from collections.abc import Mapping
from pickle import UnpicklingError  # nosec B403 # the error alone
from typing import TYPE_CHECKING, Any

from flowdex.errors import ConfigurationError

if TYPE_CHECKING:
    from flowdex_executors.encoder.model_files import ModelFiles

__all__ = ["NO_CODE", "load_pretrained"]

NO_CODE: Mapping[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""What `from_pretrained` is always told. Without the first it asks on the terminal whether to run a folder's code."""


def load_pretrained(auto: Any, files: ModelFiles, **options: Any) -> tuple[Any, Mapping[str, Any]]:
    """Load a model; safetensors where there are any.

    Args:
        auto: One of transformers' Auto classes.
        files: The model's folder, checked.
        **options: Further ones of `from_pretrained`.

    Returns:
        The model, and what transformers tells of the loading: `missing_keys` and others.

    Raises:
        ConfigurationError: transformers cannot load it, or only by running code that comes with it.
    """
    from safetensors import SafetensorError

    safe = next(files.path.glob("model*.safetensors"), None) is not None
    try:
        model, loading = auto.from_pretrained(  # nosec B615 # a local folder
            str(files.path),
            use_safetensors=True if safe else None,
            weights_only=True,
            output_loading_info=True,
            **NO_CODE,
            **options,
        )
    except UnpicklingError as error:
        raise ConfigurationError(
            f"{_pickles(files)} holds more than arrays, and is not loaded, because such a file can run any code; where "
            "you trust it, load it elsewhere and save the model as safetensors (model.save_pretrained(folder))"
        ) from error
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigurationError(
                f"{files.path / 'config.json'} asks for code that comes with the model (auto_map), which is never run; "
                f"transformers itself does not know its model_type {files.model_type!r}: name another model"
            ) from None
        raise ConfigurationError(f"transformers cannot load model {files.name!r} ({files.path}): {error}") from error
    return model, loading


def _pickles(files: ModelFiles) -> str:
    return ", ".join(str(path) for path in sorted(files.path.glob("pytorch_model*.bin"))) or str(files.path)

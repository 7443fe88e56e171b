"""What a model folder may not ask for: files outside of it, code of its own, more than its files can hold.

config.json, *.index.json --check_model_folder--> nothing | ConfigurationError that names the file and the key

A folder may come from anybody. Its weights are arrays (safetensors, or `weights_only` of torch) and its tokenizer is
data; what is left are names and numbers in JSON that the loading libraries follow without asking.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowdex.errors import ConfigurationError

__all__ = ["check_model_folder", "inner_path", "read_json"]

_LARGEST_JSON = 64 * 2**20  # bytes; an index of ten thousand tensors has one
_MOST_LAYERS = 1000  # each costs time before its weights are found to be missing
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers")
# transformers takes one with a slash for the id of a kernel, which it would fetch from the hub and run.
_KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation")


def read_json(path: Path) -> Any:
    """The content of a JSON file, None where there is no such file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_JSON + 1)
        if len(content) > _LARGEST_JSON:
            raise ConfigurationError(f"{path} has more than {_LARGEST_JSON:,} bytes, which no such file needs")
        return json.loads(content)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except RecursionError:
        raise ConfigurationError(f"{path} cannot be read: it is nested too deeply") from None
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def inner_path(folder: Path, name: Any, said_by: Path) -> Path:
    """The place in a folder that one of its files names.

    A link counts as what it leads to; those of the hub's cache lead to the `blobs` beside its `snapshots`.

    Args:
        folder: The model's folder.
        name: The name, relative to it.
        said_by: The file that has it, for the message.

    Raises:
        ConfigurationError: It is no name, or lies outside.
    """
    if not isinstance(name, str) or "\0" in name:
        raise ConfigurationError(f"{said_by} names {name!r:.80} where the name of a file is expected")
    root = folder.resolve()
    found = (folder / name).resolve()
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    if Path(name).is_absolute() or ".." in Path(name).parts or not any(found.is_relative_to(each) for each in allowed):
        raise ConfigurationError(f"{said_by} names {name!r}, which lies outside of the folder, and is not read")
    return folder / name


def check_model_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that asks for what it may not.

    Args:
        folder: The model's folder.
        config: Its config.json.

    Raises:
        ConfigurationError: Naming the file and what it asks for.
    """
    place = folder / "config.json"
    for key in _KERNELS:
        if "/" in json.dumps(config.get(key)):
            raise ConfigurationError(
                f"{place} asks for code from the hub ({key}: {config[key]!r:.80}), which is not run; take the key out"
            )
    for key in _LAYERS:
        value = config.get(key)
        if isinstance(value, (int, float)) and value > _MOST_LAYERS:
            raise ConfigurationError(f"{place} claims {value:g} layers ({key}); at most {_MOST_LAYERS} are taken")
    for index in sorted(folder.glob("*.index.json")):
        content = read_json(index)
        names = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(names, dict):
            raise ConfigurationError(f"{index} has no weight_map: it is no index of weights")
        for name in {json.dumps(value) for value in names.values()}:
            inner_path(folder, json.loads(name), index)

"""Build the executor that a flow file's entry describes.

    uses: package.Class | Class (+ py_modules) ---> class ---+     a bare name may be one of flowdex_executors, too
                                                             +--> instance, as Jina makes it
    uses: config.yml | its folder | {jtype: ...} -> Jina's --+

A class that is named by its path is imported here and not through Jina's YAML loader, which looks classes up by their
bare name, rewrites strings inside `uses_with` and hides the cause when a module cannot be imported.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import flowdex_executors
from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow.uses import check_local, config_file
from flowdex_orchestrator.worker.light_import import import_jina_for

if TYPE_CHECKING:
    from jina import Executor

    from flowdex_orchestrator.flow.model import Executor as ExecutorEntry

__all__ = ["find_class", "import_py_module", "load_executor"]

_IDENTITY = ("BaseExecutor", "Executor")  # Jina's default: returns what it gets


def load_executor(entry: ExecutorEntry, folder: Path, *, replica: int = 0, shard: int = 0) -> Executor:
    """Import the executor's class and make an instance of it.

    Args:
        entry: The executor's entry in the flow file.
        folder: The flow file's folder, to which `py_modules` and configuration files are relative.
        replica: Number of this replica, from 0.
        shard: Number of this shard, from 0.

    Raises:
        ConfigurationError: `uses` names nothing that can be loaded.
        Exception: Whatever importing the module or making the instance raises.
    """
    import_jina_for(entry)
    runtime_args = {
        "name": f"{entry.name}/rep-{replica}",
        "workspace": entry.workspace,
        "shard_id": shard,
        "shards": entry.shards,
        "replicas": entry.replicas,
        "replica_id": replica,
        "provider": "NONE",
        "provider_endpoint": None,
        "metrics_registry": None,
        "tracer_provider": None,
        "meter_provider": None,
        "allow_concurrent": bool((entry.model_extra or {}).get("allow_concurrent", False)),
    }
    config = entry.uses if isinstance(entry.uses, dict) else config_file(entry.uses, folder)
    if config is None:
        executor = _from_class(entry, folder, runtime_args)
    else:
        executor = _from_config(entry, config, folder, runtime_args)
    _resolve_postponed_annotations(executor)
    return executor


def _from_class(entry: ExecutorEntry, folder: Path, runtime_args: dict[str, Any]) -> Executor:
    uses = str(entry.uses)
    check_local(uses)
    py_modules = [import_py_module(name, folder) for name in entry.py_modules]
    cls = find_class(uses, py_modules)
    from jina.jaml.parsers.executor.legacy import ExecutorLegacyParser

    data = {"with": dict(entry.uses_with), "metas": dict(entry.uses_metas), "requests": dict(entry.uses_requests)}
    executor: Executor = ExecutorLegacyParser().parse(cls, data, runtime_args=runtime_args)
    return executor


def _from_config(
    entry: ExecutorEntry, source: str | dict[str, Any], folder: Path, runtime_args: dict[str, Any]
) -> Executor:
    from jina import Executor

    for name in entry.py_modules:
        import_py_module(name, folder)
    if isinstance(source, str):
        source = str(folder / source)
        if not Path(source).is_file():
            raise ConfigurationError(f"uses: there is no file {source}")
    try:
        executor: Executor = Executor.load_config(
            source,
            uses_with=dict(entry.uses_with),
            uses_metas=dict(entry.uses_metas),
            uses_requests=dict(entry.uses_requests),
            extra_search_paths=[str(folder)],
            runtime_args=runtime_args,
        )
    except ImportError as error:
        if error.__cause__ is not None and "can not import module" in str(error):
            raise error.__cause__ from None  # Jina says only which file it was, the cause says why
        raise
    return executor


def import_py_module(name: str, folder: Path) -> ModuleType:
    """Import an item of `py_modules`: a file, relative to the flow file, or the name of a module."""
    path = (folder / name).resolve()
    if path.is_dir() and (path / "__init__.py").is_file():
        path /= "__init__.py"
    if not path.is_file():
        if name.endswith(".py"):
            raise ConfigurationError(f"py_modules: there is no file {path}")
        return importlib.import_module(name)
    module_name = path.parent.name if path.stem == "__init__" else path.stem
    known = sys.modules.get(module_name)
    if known is not None:
        if getattr(known, "__file__", None) == str(path):
            return known
        module_name = f"user_module_{module_name}"  # a file must not take the place of an imported module
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"py_modules: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


def find_class(uses: str, py_modules: Sequence[ModuleType]) -> Any:
    """Find the class that `uses` names, in the flow's own modules or an installed package.

    Raises:
        ConfigurationError: There is none, or it is no executor.
        Exception: Whatever importing its module raises.
    """
    from jina import Executor

    module_name, _, class_name = uses.rpartition(".")
    if not module_name and class_name in _IDENTITY:
        return Executor
    own = {module.__name__: module for module in py_modules}
    if not module_name:
        places = [*py_modules, flowdex_executors] if uses in flowdex_executors.__all__ else list(py_modules)
        if not places:
            near = difflib.get_close_matches(uses, flowdex_executors.__all__, n=1)
            raise ConfigurationError(
                f"uses: {uses} is no executor of flowdex{f' (did you mean {near[0]}?)' if near else ''}; "
                f"write package.{uses}, or name the file of {uses} in py_modules"
            )
    else:
        places = [own.get(module_name) or importlib.import_module(module_name)]
    for place in places:
        cls = getattr(place, class_name, None)
        if isinstance(cls, type) and issubclass(cls, Executor):
            return cls
        if cls is not None:
            raise ConfigurationError(f"uses: {uses} is not a subclass of jina.Executor")
    names = sorted(
        {name for place in places for name, item in vars(place).items() if _is_executor(item) and item is not Executor}
        | {name for place in places for name in getattr(place, "__all__", ())}
    )
    near = difflib.get_close_matches(class_name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names) or 'no executor'}"
    raise ConfigurationError(
        f"uses: {uses}: {', '.join(place.__name__ for place in places)} has no class {class_name}; {hint}"
    )


def _is_executor(item: Any) -> bool:
    from jina import Executor

    return isinstance(item, type) and issubclass(item, Executor)


def _resolve_postponed_annotations(executor: Executor) -> None:
    """Give endpoints of a module with `from __future__ import annotations` the types they are annotated with.

    Jina takes an annotation that is a string for its legacy document type. What cannot be resolved stays with that.
    """
    from docarray import DocList
    from jina._docarray import LegacyDocumentJina
    from jina.serve.executors import _FunctionWithSchema

    fallback = (LegacyDocumentJina, DocList[LegacyDocumentJina])
    for endpoint, binding in list(executor.requests.items()):
        function = inspect.unwrap(binding.fn)
        if not any(isinstance(annotation, str) for annotation in function.__annotations__.values()):
            continue
        try:
            hints = typing.get_type_hints(function)
        except (NameError, TypeError, AttributeError):
            continue
        binding.fn.__annotations__ = hints
        resolved = _FunctionWithSchema.get_function_with_schema(binding.fn)
        named = {
            key: getattr(binding, key)  # what @requests(request_schema=...) says goes before the annotation
            for key in ("request_schema", "response_schema")
            if getattr(binding, key) not in fallback
        }
        executor.requests[endpoint] = resolved._replace(**named)

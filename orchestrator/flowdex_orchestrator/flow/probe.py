"""The half of `flowdex check` that imports executors: a process of its own, because that is other people's code.

    stdin:  {"flow_folder": ..., "executors": [...]} -> each: import the class, read its constructor, ask its hooks
    stdout: one JSON line when an executor is begun, one with its problems and facts when it is done

What the code under inspection prints goes to stderr. It may hang, exit or crash: whoever started this process knows
from the lines so far whose fault it was.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from flowdex.errors import ConfigurationError
from flowdex_orchestrator.flow.findings import KeyPath, nearest
from flowdex_orchestrator.flow.hooks import CheckContext
from flowdex_orchestrator.flow.model import Executor
from flowdex_orchestrator.flow.signatures import JINA_ARGUMENTS, read_arguments
from flowdex_orchestrator.flow.substitution import SubstitutionError, substitute
from flowdex_orchestrator.flow.uses import check_local, config_file
from flowdex_orchestrator.flow.yaml_reader import read_yaml, resolve_scalar
from flowdex_orchestrator.worker.light_import import import_jina_for

__all__ = ["Report", "inspect_executor", "main"]

_OLD_TAG = re.compile(r"^!(\w+)", re.MULTILINE)


@dataclass
class Report:
    """What was found about one executor.

    Attributes:
        problems: (path below the executor, message, severity).
        facts: What its class says of itself.
    """

    problems: list[tuple[KeyPath, str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, key: KeyPath, message: str, severity: str = "error") -> None:
        """Note a problem."""
        self.problems.append((key, message, severity))


@dataclass(frozen=True)
class _Target:
    """The class to start and its arguments; `source` names the file of those that are not in the flow."""

    cls: type[Any]
    arguments: dict[str, Any]
    requests: dict[str, Any]
    source: str = ""


def inspect_executor(entry: Executor, flow_folder: Path, context: CheckContext) -> Report:
    """Import an executor's class and find what would fail when it starts."""
    report = Report()
    modules = set(sys.modules)
    try:
        target = _resolve(entry, flow_folder)
    except ConfigurationError as error:
        key, message = _split(error.message, ("uses", "py_modules"))
        report.add((key or "uses",), message)
        return report
    except (Exception, SystemExit) as error:  # the code of whoever wrote the executor: anything can come out of it
        report.add(("uses",), f"importing it failed: {describe_error(error)}")
        _forget(modules, flow_folder)
        return report
    _check_arguments(entry, target, report)
    for endpoint, method in target.requests.items():
        if not callable(getattr(target.cls, str(method), None)):
            methods = [name for name, _ in inspect.getmembers(target.cls, callable) if not name.startswith("_")]
            report.add(
                ("uses_requests", endpoint),
                f"{target.cls.__name__} has no method {method!r}{nearest(str(method), methods)}",
            )
    if not report.problems:
        _ask_hooks(target, context, report)
    return report


def describe_error(error: BaseException) -> str:
    """`file.py:3: ModuleNotFoundError: No module named 'x'`, and the remedy if there is one."""
    from flowdex_orchestrator.runner.diagnosis import remedy_for

    text = traceback.format_exception_only(type(error), error)[-1].strip()
    part_of_package = isinstance(error, ImportError) and "." in (error.name or "")  # nothing that pip could install
    if not part_of_package and (remedy := remedy_for(text)):
        text = f"{text} ({remedy})"
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {text}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_machinery(frame.filename)]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{own[-1].filename}:{own[-1].lineno}: {text}" if own else text


def _is_machinery(filename: str) -> bool:
    """Whether a frame is of the import itself, not of the code that is imported."""
    return filename.startswith("<frozen") or filename in (__file__, _worker_load().__file__) or "importlib" in filename


def _forget(modules: set[str], folder: Path) -> None:
    """Drop the modules of a failed import, which Python keeps half made, so that the next executor fails alike."""
    for name in sys.modules.keys() - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder.resolve())):
            del sys.modules[name]


def _worker_load() -> ModuleType:
    from flowdex_orchestrator.worker import load

    return load


def _resolve(entry: Executor, flow_folder: Path) -> _Target:
    """As the worker will: by the same functions."""
    load = _worker_load()
    modules = [load.import_py_module(name, flow_folder) for name in entry.py_modules]
    arguments, requests = dict(entry.uses_with), dict(entry.uses_requests)
    uses = entry.uses if isinstance(entry.uses, dict) else config_file(entry.uses, flow_folder)
    if uses is None:
        check_local(str(entry.uses))
        return _Target(load.find_class(entry.uses, modules), arguments, requests)
    config, folder, source = _read_config(uses, flow_folder)
    listed = [config.get("py_modules"), (config.get("metas") or {}).get("py_modules")]
    names = [name for item in listed if item for name in ([item] if isinstance(item, str) else item)]
    modules += [load.import_py_module(str(name), folder) for name in names]
    name = config.get("jtype")
    if not isinstance(name, str):
        raise ConfigurationError(f"uses: {source} has no `jtype: ClassName`")
    given = config.get("with") or {}
    return _Target(
        _registered(name) or load.find_class(name, modules),
        {**given, **arguments},
        {**(config.get("requests") or {}), **requests},
        source,
    )


def _read_config(uses: str | dict[str, Any], flow_folder: Path) -> tuple[dict[str, Any], Path, str]:
    if isinstance(uses, dict):
        return uses, flow_folder, "the inline mapping"
    path = flow_folder / uses
    try:
        text = _OLD_TAG.sub(r"jtype: \1", path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"uses: there is no file {uses} in {flow_folder}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"uses: {uses} cannot be read: {error}") from None
    document = read_yaml(text, uses, _lenient)
    if document.findings or not isinstance(document.value, dict):
        reason = "; ".join(str(finding) for finding in document.findings) or "expected a mapping with `jtype`"
        raise ConfigurationError(f"uses: {reason}")
    return document.value, path.parent, uses


def _lenient(text: str) -> Any:
    """Jina, which reads these files, leaves unknown variables as they stand."""
    try:
        return substitute(text, os.environ, {}, resolve_scalar)
    except SubstitutionError:
        return text


def _registered(name: str) -> type[Any] | None:
    """The class that an import has made known to Jina under this bare name."""
    from jina import Executor as JinaExecutor
    from jina.jaml import JAML

    cls = JAML.cls_from_tag(name)
    return cls if isinstance(cls, type) and issubclass(cls, JinaExecutor) and cls is not JinaExecutor else None


def _check_arguments(entry: Executor, target: _Target, report: Report) -> None:
    name = target.cls.__name__
    known = read_arguments(target.cls)
    if not known.takes_hosts:
        needed = ", ".join(sorted(JINA_ARGUMENTS))
        report.add(("uses",), f"{name}.__init__ must take **kwargs and pass them to super().__init__ ({needed})")
    for argument in target.arguments.keys() - known.names:
        near = nearest(argument, known.names)
        if known.complete:
            choices = "" if near else f"; it takes {', '.join(sorted(known.names - {'workspace'})) or 'none'}"
            message, severity = f"{name} takes no such argument{near}{choices}", "error"
        else:
            message, severity = f"{name} names no such argument{near}", "warning"
        if argument in entry.uses_with:
            report.add(("uses_with", argument), message, severity)
        else:
            report.add(("uses",), f"{target.source}: with.{argument}: {message}", severity)
    for argument in sorted(known.required - target.arguments.keys() - JINA_ARGUMENTS):
        report.add(("uses_with",) if entry.uses_with else ("uses",), f"{name} needs the argument {argument!r}")


def _ask_hooks(target: _Target, context: CheckContext, report: Report) -> None:
    check, describe = getattr(target.cls, "check", None), getattr(target.cls, "describe", None)
    if inspect.ismethod(describe):
        for facts in _guarded(lambda: [describe(target.arguments)], target, report):
            report.facts = facts if isinstance(facts, dict) else {}
    if inspect.ismethod(check) and not report.problems:
        for problem in _guarded(lambda: check(target.arguments, context), target, report):
            key, message = _split(str(problem), tuple(target.arguments))
            report.add(("uses_with", key) if key else ("uses",), message)


def _guarded(call: Callable[[], Iterable[Any]], target: _Target, report: Report) -> list[Any]:
    """What a hook returns; what it raises becomes a problem."""
    try:
        return list(call())
    except ConfigurationError as error:
        key, message = _split(error.message, tuple(target.arguments))
        if not key:  # "there is no model 'x'" speaks of the argument whose value it names
            shown = {name: f"{value!r}" for name, value in target.arguments.items()}
            key = next((name for name, value in shown.items() if value in error.message), None)
        report.add(("uses_with", key) if key else ("uses",), message)
    except (Exception, SystemExit) as error:  # as for the import
        report.add(("uses",), f"its own check failed: {describe_error(error)}")
    return []


def _split(message: str, keys: tuple[str, ...]) -> tuple[str | None, str]:
    """`("uses", "there is no file x")` for `uses: there is no file x`."""
    for key in keys:
        if message.startswith(f"{key}: "):
            return key, message[len(key) + 2 :]
    return None, message


def main(source: TextIO, answer: TextIO) -> None:
    """Inspect the executors that `source` lists."""
    order: Mapping[str, Any] = json.load(source)
    for line in _lines(order):
        answer.write(json.dumps(line, default=str) + "\n")
        answer.flush()


def _lines(order: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    folder = Path.cwd()
    entries = [Executor.model_validate(item["entry"]) for item in order["executors"]]
    import_jina_for(*entries)
    for item, entry in zip(order["executors"], entries, strict=True):
        yield {"begin": item["index"]}
        context = CheckContext(entry.name, folder, entry.replicas)
        report = inspect_executor(entry, Path(order["flow_folder"]), context)
        yield {"done": item["index"], "problems": report.problems, "facts": report.facts}


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what executors print on import is not an answer
        main(sys.stdin, answers)

"""YAML to plain Python data, with the line and column of every key and item, and all mistakes at once.

    text --yaml.compose--> nodes --walk--> Document(value, positions) + findings
                                    |
                                    +-- substitute(scalar) for every string value

Stricter than YAML where YAML lets mistakes pass (duplicate keys, tags that build objects, aliases that nest or
explode), and, like Jina, not surprised by `on:` and `off:`, which stay strings. Dates stay strings too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from flowdex_orchestrator.flow.findings import Finding, KeyPath, format_key

__all__ = ["Document", "Position", "read_yaml", "resolve_scalar"]

Position = tuple[int, int]
"""Line and column, both from 1."""

_CORE = "tag:yaml.org,2002:"
_TEXT_TAGS = {_CORE + name for name in ("str", "timestamp", "value")}
_SCALAR_TAGS = {_CORE + name for name in ("null", "bool", "int", "float")}
_MAX_VALUES = 100_000  # a flow has tens; more is an alias bomb
_UNREAD: Any = object()  # in place of a value that could not be read and has been reported
_MAX_NUMBER = 100  # digits: longer ones are no setting, and Python refuses to print them


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, except that `on`, `off` and their capitals are strings, as in Jina."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not (first in "oO" and tag == _CORE + "bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass
class Document:
    """What a file holds.

    Attributes:
        value: Mappings, lists and scalars. Values that could not be read are left out and reported.
        positions: Where each key (of a mapping) or item (of a list) stands.
        unread: The places whose value could not be read and has been reported.
        findings: The mistakes found while reading.
    """

    value: Any = None
    positions: dict[KeyPath, Position] = field(default_factory=dict)
    unread: set[KeyPath] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def position(self, path: KeyPath) -> Position | None:
        """Position of the key at `path`, or of the nearest enclosing one that has a position."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.positions:
                return self.positions[path[:length]]
        return None


def resolve_scalar(text: str) -> Any:
    """The value YAML reads in a plain scalar: `"2"` is 2, `"true"` is True, `"[a, 1]"` is `["a", 1]`, else the text."""
    if text.startswith("[") and text.endswith("]"):
        return [resolve_scalar(item.strip()) for item in text[1:-1].split(",") if item.strip()]
    loader = _Loader("")
    try:
        tag: str = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        return _scalar(loader, yaml.ScalarNode(tag, text)) if tag in _SCALAR_TAGS else text
    except ValueError:
        return text
    finally:
        loader.dispose()


def read_yaml(text: str, file: str, substitute: Callable[[str], Any] = str) -> Document:
    """Read one YAML document.

    Args:
        text: The document.
        file: How findings name it.
        substitute: Called with each string value; a ValueError it raises becomes a finding there.

    Returns:
        The document; `findings` is empty where all of it could be read.
    """
    document = Document()

    def report(message: str, mark: Any, path: KeyPath = ()) -> None:
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        document.findings.append(Finding(message, format_key(path), file, line, column))

    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            report("the file is empty; a flow starts with `jtype: Flow`", None)
        else:
            value = _Walk(loader, document, report, substitute).read(node, ())
            document.value = None if value is _UNREAD else value
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = yaml.Mark(file, 0, before.count("\n"), len(before) - before.rfind("\n") - 1, "", 0)
        report(f"the character U+{int(error.character):04X} is not allowed in YAML", mark)
    except yaml.MarkedYAMLError as error:
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; indent with spaces, not tabs" if "\\t" in problem else ""
        report(f"not valid YAML: {problem}{hint}", error.problem_mark or error.context_mark)
    except RecursionError:
        report("nested too deeply to be a flow", None)
    finally:
        if loader is not None:
            loader.dispose()
    return document


class _Walk:
    """One walk over the nodes of one document."""

    def __init__(
        self,
        loader: _Loader,
        document: Document,
        report: Callable[[str, Any, KeyPath], None],
        substitute: Callable[[str], Any],
    ) -> None:
        self._loader = loader
        self._document = document
        self._report = report
        self._substitute = substitute
        self._open: set[int] = set()  # the collections being read: an alias to one of them is a cycle
        self._count = 0

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        value = self._read(node, path)
        if value is _UNREAD:
            self._document.unread.add(path)
        return value

    def _read(self, node: yaml.Node, path: KeyPath) -> Any:
        self._count += 1
        if self._count == _MAX_VALUES:
            self._report(f"more than {_MAX_VALUES:,} values; do aliases repeat each other?", node.start_mark, path)
        if self._count >= _MAX_VALUES:
            return _UNREAD
        self._document.positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.ScalarNode):
            return self._read_scalar(node, path)
        if node.tag not in (_CORE + "map", _CORE + "seq"):
            self._report(_tag_message(node.tag), node.start_mark, path)
            self._document.unread.add(path)
        if id(node) in self._open:
            self._report("an alias must not contain itself", node.start_mark, path)
            return _UNREAD
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._read_mapping(node, path)
            items = [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
            return [None if item is _UNREAD else item for item in items]  # the others keep their places
        finally:
            self._open.discard(id(node))

    def _read_scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        try:
            if node.tag in _SCALAR_TAGS:
                return _scalar(self._loader, node)
            if node.tag not in _TEXT_TAGS:
                self._report(_tag_message(node.tag), node.start_mark, path)
                return _UNREAD
            return self._substitute(node.value)
        except ValueError as error:
            self._report(str(error), node.start_mark, path)
            return _UNREAD

    def _read_mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _CORE + "merge":
                merged.extend(value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node])
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._report("a key must be a word, not a list or mapping", key_node.start_mark, path)
                continue
            key = key_node.value
            key_path = (*path, key)
            if key in lines:
                self._report(f"the key stands twice, first in line {lines[key]}", key_node.start_mark, key_path)
                continue
            lines[key] = key_node.start_mark.line + 1
            self._document.positions[key_path] = (lines[key], key_node.start_mark.column + 1)
            value = self.read(value_node, key_path)
            if value is not _UNREAD:
                mapping[key] = value
        for source in merged:  # `<<: *defaults`: the mapping's own keys win, then the first merged mapping's
            if not isinstance(source, yaml.MappingNode):
                self._report("`<<` merges mappings only", source.start_mark, (*path, "<<"))
                continue
            if id(source) in self._open:
                self._report("an alias must not contain itself", source.start_mark, (*path, "<<"))
                continue
            self._open.add(id(source))
            kept = [(key, value) for key, value in source.value if getattr(key, "value", None) not in mapping]
            mapping.update(self._read_mapping(yaml.MappingNode(source.tag, kept, source.start_mark), path))
            self._open.discard(id(source))
        return mapping


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Null, bool, int or float; raises ValueError for a text that is none of what its tag says."""
    if len(node.value) > _MAX_NUMBER:
        raise ValueError(f"a number of {len(node.value)} digits is too long")
    try:
        return loader.construct_object(node)
    except (KeyError, IndexError, OverflowError, ValueError):
        raise ValueError(f"{node.value!r} is not a valid {node.tag.removeprefix(_CORE)}") from None


def _tag_message(tag: str) -> str:
    if tag == "!Flow":
        return "the tag !Flow is the syntax of Jina 2; write `jtype: Flow` as the first key instead"
    if tag.startswith("!") and len(tag) > 1:
        return f"the tag {tag} is the syntax of Jina 2; write `jtype: {tag[1:]}` as a key, or `uses: {tag[1:]}`"
    short = "!!" + tag.removeprefix(_CORE) if tag.startswith(_CORE) else tag
    return f"the YAML tag {short} is not allowed in a flow; write plain values"

"""Which arguments a class takes, through its bases and their **kwargs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowdex_orchestrator.flow.signatures import read_arguments


class Host:
    """Stands for jina.Executor: it swallows every argument."""

    def __init__(self, metas: Any = None, requests: Any = None, runtime_args: Any = None, **kwargs: Any) -> None:
        pass


Host.__module__ = "jina.serve.executors"


class Base(Host):
    def __init__(self, batch: int = 32, *, device: str = "cpu", **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Encoder(Base):
    def __init__(self, model: str, **options: Any) -> None:
        super().__init__(batch=5, **options)


class Plain(Encoder):
    pass


class Looking(Base):
    def __init__(self, **kwargs: Any) -> None:
        self.colour = kwargs.pop("colour", None)
        super().__init__(**kwargs)


class Elsewhere(Base):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.settings = dict(**kwargs)


class Closed(Host):
    def __init__(self, size: int) -> None:
        super().__init__()


class Spelt(Host):
    def __init__(self, metas: Any, requests: Any, runtime_args: Any, dynamic_batching: Any, size: int = 1) -> None:
        super().__init__(metas=metas, requests=requests, runtime_args=runtime_args)


@dataclass
class Data(Host):
    size: int = 1


def test_arguments_of_all_bases() -> None:
    found = read_arguments(Encoder)
    assert found.names == {"model", "batch", "device", "workspace"}
    assert found.required == {"model"}
    assert found.complete
    assert found.takes_hosts
    assert read_arguments(Plain) == found


def test_kwargs_that_are_looked_into_leave_it_open() -> None:
    assert not read_arguments(Looking).complete
    assert not read_arguments(Elsewhere).complete


def test_constructors_without_kwargs() -> None:
    closed = read_arguments(Closed)
    assert (closed.names, closed.required, closed.complete, closed.takes_hosts) == (
        {"size", "workspace"},
        {"size"},
        True,
        False,
    )
    assert read_arguments(Spelt).takes_hosts
    assert read_arguments(Data).takes_hosts


def test_a_class_without_source_is_left_open() -> None:
    scope: dict[str, Any] = {"Base": Base}
    exec("class Typed(Base):\n    def __init__(self, a=1, **kw): super().__init__(**kw)\n", scope)
    assert not read_arguments(scope["Typed"]).complete

r"""Tenants: whose documents a request sees and writes, where the gateway says whose it is.

    request {__tenant__: acme}   ids: x -> acme\x1fx     filter: F -> {$and: [F, tenant = acme]}
    reply                        ids: acme\x1fx -> x

A tenant's documents are stored under ids that begin with the tenant's name, so that the same id in two tenants is two
documents, and with the name in their payload, by which every read is filtered. Nothing else knows of tenants: a copy,
a snapshot or a reindex keeps them, because the id does.

The parameter is the gateway's: it takes out what a caller sends under that name, wherever that is. A request without it
is the operator's, who sees the ids as they are stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from flowdex.documents import DocumentBatch
from flowdex.errors import FlowdexError, PermissionDenied
from flowdex_executors.indexer.payload import TENANT_PATH, TENANT_SEPARATOR
from flowdex_executors.schema import DocumentColumns

__all__ = ["TENANT_PARAMETER", "Tenant", "confined", "tenant_of"]

EndpointT = TypeVar("EndpointT", bound=Callable[..., Awaitable[Any]])

TENANT_PARAMETER = "__tenant__"
_BY_ID = frozenset({"/index", "/get", "/delete"})  # whose documents are those stored, or to be stored, under their ids
_LOGICAL = ("$and", "$or")
_DEEPEST = 64  # filters nested deeper are refused anyway, by their compiler


@dataclass(frozen=True)
class Tenant:
    """One tenant.

    Attributes:
        name: Its name, without the separator.
    """

    name: str

    @property
    def _prefix(self) -> str:
        return f"{self.name}{TENANT_SEPARATOR}"

    def stored(self, id_: str) -> str:
        """An id as it is stored; an empty one stays empty, and is refused as such."""
        return f"{self._prefix}{id_}" if id_ else id_

    def bare(self, id_: str) -> str:
        """A stored id as the tenant knows it."""
        return id_.removeprefix(self._prefix)

    def confine(self, parameters: Mapping[str, Any], endpoint: str) -> dict[str, Any]:
        """The parameters of an endpoint, so that they reach this tenant's documents alone.

        Raises:
            PermissionDenied: They ask for what is the operator's.
        """
        if parameters.get("reindex") is not None:
            raise PermissionDenied("reindexing is not for the key of a tenant")
        own = {TENANT_PATH: self.name}
        confined = {**parameters, "tenant": self.name}
        given = parameters.get("filter")
        if given:
            confined["filter"] = {"$and": [self._ids_stored(given, 0), own]}
        elif endpoint != "/delete":  # where no filter is none: ids name what to delete, or nothing does
            confined["filter"] = own
        if isinstance(ids := parameters.get("ids"), (list, tuple)):
            confined["ids"] = [self.stored(each) if isinstance(each, str) else each for each in ids]
        return confined

    def _ids_stored(self, filter_: Any, depth: int) -> Any:
        """A filter whose conditions on `id` compare with stored ids."""
        if not isinstance(filter_, Mapping) or depth > _DEEPEST:
            return filter_
        changed: dict[str, Any] = {}
        for key, operand in filter_.items():
            if key in _LOGICAL and isinstance(operand, Sequence) and not isinstance(operand, str):
                changed[key] = [self._ids_stored(each, depth + 1) for each in operand]
            elif key == "$not":
                changed[key] = self._ids_stored(operand, depth + 1)
            else:
                changed[key] = self._stored_values(operand) if key == "id" else operand
        return changed

    def _stored_values(self, operand: Any) -> Any:
        if isinstance(operand, str):
            return self.stored(operand)
        if isinstance(operand, Mapping):
            return {operator: self._stored_values(value) for operator, value in operand.items()}
        if isinstance(operand, (list, tuple)):
            return [self._stored_values(value) for value in operand]
        return operand

    def bare_batch(self, batch: DocumentBatch) -> None:
        """Give documents, and the passages in them, the ids that the tenant knows."""
        if not batch:
            return
        batch.ids = [self.bare(id_) for id_ in batch.ids]
        parents = batch.column("parent_id")
        if any(parents):
            batch.set_column("parent_id", [None if each is None else self.bare(each) for each in parents])
        errors = batch.column("error")
        if any(errors):
            batch.set_column("error", [self._bare_error(each) for each in errors])
        for name in ("matches", "chunks"):
            for nested in batch.nested(name):
                self.bare_batch(nested)

    def bare_message(self, text: str) -> str:
        """A message without the tenant's prefix, as it is or escaped."""
        return text.replace(repr(self._prefix)[1:-1], "").replace(self._prefix, "")

    def bare_failure(self, error: FlowdexError) -> FlowdexError:
        """An error whose message names ids as the tenant knows them."""
        return type(error)(self.bare_message(error.message), retry_after=error.retry_after, executor=error.executor)

    def _bare_error(self, error: Any) -> Any:
        if not isinstance(error, Mapping):
            return error
        return {name: self.bare_message(value) if isinstance(value, str) else value for name, value in error.items()}


def tenant_of(parameters: Mapping[str, Any] | None) -> Tenant | None:
    """The tenant of a request, None for the operator's."""
    name = (parameters or {}).get(TENANT_PARAMETER)
    return Tenant(name) if isinstance(name, str) and name else None


def confined(endpoint: str) -> Callable[[EndpointT], EndpointT]:
    """Have an endpoint see and write the documents of the request's tenant alone, where it has one."""

    def decorate(method: EndpointT) -> EndpointT:
        @wraps(method)
        async def call(self: Any, docs: Any = None, parameters: Any = None, **kwargs: Any):  # type: ignore[no-untyped-def]  # Jina would warn of another return type than documents
            tenant = tenant_of(parameters)
            if tenant is None:
                return await method(self, docs=docs, parameters=parameters, **kwargs)
            if endpoint in _BY_ID:
                docs.batch.ids = [tenant.stored(id_) for id_ in docs.batch.ids]
            try:
                answer = await method(self, docs=docs, parameters=tenant.confine(parameters, endpoint), **kwargs)
            except FlowdexError as error:
                raise tenant.bare_failure(error) from None
            if isinstance(answer, DocumentColumns):
                tenant.bare_batch(answer.batch)
            return answer

        return cast("EndpointT", call)

    return decorate

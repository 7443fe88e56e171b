"""A double of a Qdrant server on real sockets: REST and gRPC, over an embedded index.

    AsyncQdrantClient --http(s)-->  FastAPI routes   --\
                      --grpc(s)-->  gRPC servicers   ---> Store --> AsyncEdgeClient --> engine process
                                        ^ Faults: what is to go wrong

It answers the calls that the indexer makes, in Qdrant's formats and with its refusals: aliases, collections with their
layout, points. It runs in a thread (`running`), or as a process of its own that can be killed and started again on the
same port: `python qdrant_double.py DIRECTORY PORT rest|grpc`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import grpc
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter
from qdrant_client import grpc as q
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc.collections_service_pb2_grpc import CollectionsServicer, add_CollectionsServicer_to_server
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server

from flowdex.errors import FlowdexError
from flowdex_executors.indexer.edge import AsyncEdgeClient

Protocol = Literal["rest", "grpc"]
ALIAS_OPERATIONS = TypeAdapter(list[models.AliasOperations])
UPDATE_OPERATIONS = TypeAdapter(list[models.UpdateOperation])


@dataclass
class Refusal(Exception):
    """An answer that is an error, in both protocols."""

    http: int
    grpc: grpc.StatusCode
    message: str
    retry_after: int | None = None


UNAVAILABLE = Refusal(503, grpc.StatusCode.UNAVAILABLE, "the server is starting")
BAD_GATEWAY = Refusal(502, grpc.StatusCode.UNAVAILABLE, "upstream connect error")
RATE_LIMITED = Refusal(429, grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit exceeded", retry_after=1)
RATE_LIMITED_SILENTLY = Refusal(429, grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limit exceeded")
BAD_REQUEST = Refusal(400, grpc.StatusCode.INVALID_ARGUMENT, "wrong input: nonsense")


@dataclass
class Faults:
    """What goes wrong next, and what was asked so far.

    Attributes:
        next: Answers to give instead of the next ones; a number is seconds to wait before an answer.
        calls: Names of the calls, also of those that failed.
    """

    next: list[Refusal | float] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    async def strike(self, call: str) -> None:
        """Let the next thing go wrong, if there is one."""
        self.calls.append(call)
        fault = self.next.pop(0) if self.next else None
        if isinstance(fault, Refusal):
            raise fault
        if fault is not None:
            await asyncio.sleep(fault)


# ---- what both protocols do ----


def missing(name: str) -> Refusal:
    return Refusal(404, grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!")


class Store:
    """Collections, their layouts and aliases, as a server has them."""

    def __init__(self, directory: Path) -> None:
        self.engine = AsyncEdgeClient(directory)
        self._layouts = directory / "layouts.json"
        self._writing = asyncio.Lock()

    def layout(self, name: str) -> dict[str, Any]:
        """What `create` was told, as JSON."""
        layouts = json.loads(self._layouts.read_text()) if self._layouts.exists() else {}
        found: dict[str, Any] = layouts.get(name, {})
        return found

    def _note(self, name: str, layout: dict[str, Any]) -> None:
        layouts = json.loads(self._layouts.read_text()) if self._layouts.exists() else {}
        self._layouts.write_text(json.dumps({**layouts, name: layout}))

    async def aliases(self) -> dict[str, str]:
        """The collection of each alias."""
        return {each.alias_name: each.collection_name for each in (await self.engine.get_aliases()).aliases}

    async def exists(self, name: str) -> bool:
        """Whether there is a collection or alias of that name."""
        return name in await self.aliases() or await self.engine.collection_exists(name)

    async def real(self, name: str) -> str:
        """The collection that a name stands for."""
        name = (await self.aliases()).get(name, name)
        if not await self.engine.collection_exists(name):
            raise missing(name)
        return name

    async def create(self, name: str, request: models.CreateCollection) -> bool:
        """Create a collection."""
        if await self.exists(name):
            raise Refusal(409, grpc.StatusCode.ALREADY_EXISTS, f"Wrong input: Collection `{name}` already exists!")
        assert isinstance(request.vectors, dict) and request.sparse_vectors
        self._note(name, request.model_dump(mode="json", exclude_none=True))
        return await self.engine.create_collection(name, request.vectors, request.sparse_vectors)

    async def info(self, name: str) -> models.CollectionInfo:
        """Describe a collection."""
        name = await self.real(name)
        has = await self.engine.get_collection(name)
        layout = self.layout(name)
        graph = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, **layout.get("hnsw_config", {})}
        params = {
            "vectors": layout["vectors"],
            "sparse_vectors": layout["sparse_vectors"],
            "shard_number": layout.get("shard_number", 1),
            "replication_factor": layout.get("replication_factor", 1),
            "write_consistency_factor": layout.get("write_consistency_factor", 1),
            "on_disk_payload": layout.get("on_disk_payload", True),
        }
        optimizers = {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        }
        return models.CollectionInfo.model_validate(
            {
                "status": "green",
                "optimizer_status": "ok",
                "segments_count": 1,
                "points_count": has.points_count,
                "config": {
                    "params": params,
                    "hnsw_config": graph,
                    "optimizer_config": optimizers,
                    "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
                    "quantization_config": layout.get("quantization_config"),
                },
                "payload_schema": {key: {"data_type": "keyword", "points": 0} for key in has.payload_schema},
            }
        )

    async def change_aliases(self, operations: list[Any]) -> bool:
        """Change aliases, all at once."""
        for operation in operations:
            if isinstance(operation, models.CreateAliasOperation):
                wanted = operation.create_alias
                if not await self.engine.collection_exists(wanted.collection_name):
                    raise missing(wanted.collection_name)
                if await self.engine.collection_exists(wanted.alias_name):
                    raise Refusal(
                        409,
                        grpc.StatusCode.INVALID_ARGUMENT,
                        f"Wrong input: Can't create alias, collection `{wanted.alias_name}` exists",
                    )
        return await self.engine.update_collection_aliases(operations)

    async def update(self, name: str, operations: list[Any]) -> int:
        """Carry out operations on points; returns how many."""
        name = await self.real(name)
        for operation in operations:
            if isinstance(operation, models.UpsertOperation):
                assert isinstance(operation.upsert, models.PointsList)
                self._check_sizes(name, operation.upsert.points)
        # The engine's update is of points that all have the same vectors; a server's is not.
        async with self._writing:
            await self.engine.batch_update_points(name, operations)
        return len(operations)

    def _check_sizes(self, name: str, points: list[models.PointStruct]) -> None:
        vectors = self.layout(name)["vectors"]
        for point in points:
            assert isinstance(point.vector, dict)
            for vector, value in point.vector.items():
                if isinstance(value, list) and len(value) != vectors[vector]["size"]:
                    raise Refusal(
                        400,
                        grpc.StatusCode.INVALID_ARGUMENT,
                        f"Wrong input: Vector dimension error: expected dim: {vectors[vector]['size']}, "
                        f"got {len(value)}",
                    )


# ---- REST ----


def rest_app(store: Store, faults: Faults, api_key: str | None) -> FastAPI:
    """The REST routes that the indexer uses."""
    app = FastAPI()
    engine = store.engine

    def ok(result: Any) -> dict[str, Any]:
        return {"result": result, "status": "ok", "time": 0.0}

    def refused(refusal: Refusal) -> JSONResponse:
        headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        body = {"status": {"error": refusal.message}, "time": 0.0}
        return JSONResponse(body, status_code=refusal.http, headers=headers)

    @app.middleware("http")
    async def guard(request: Request, follow: Callable[[Request], Awaitable[Any]]) -> Any:
        if api_key is not None and request.headers.get("api-key") != api_key:
            return refused(Refusal(401, grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key"))
        try:
            await faults.strike(f"{request.method} {request.url.path}")
        except Refusal as refusal:
            return refused(refusal)
        return await follow(request)

    @app.exception_handler(Refusal)
    async def on_refusal(request: Request, refusal: Refusal) -> JSONResponse:
        return refused(refusal)

    @app.exception_handler(FlowdexError)
    async def on_error(request: Request, error: FlowdexError) -> JSONResponse:
        return refused(Refusal(500, grpc.StatusCode.INTERNAL, f"Service internal error: {error}"))

    @app.get("/aliases")
    async def aliases() -> Any:
        return ok((await engine.get_aliases()).model_dump())

    @app.post("/collections/aliases")
    async def change(body: dict[str, Any]) -> Any:
        return ok(await store.change_aliases(ALIAS_OPERATIONS.validate_python(body["actions"])))

    @app.get("/collections/{name}/exists")
    async def exists(name: str) -> Any:
        return ok({"exists": await store.exists(name)})

    @app.get("/collections/{name}")
    async def get(name: str) -> Any:
        return ok((await store.info(name)).model_dump(mode="json", exclude_none=True))

    @app.put("/collections/{name}")
    async def create(name: str, body: dict[str, Any]) -> Any:
        return ok(await store.create(name, models.CreateCollection.model_validate(body)))

    @app.delete("/collections/{name}")
    async def drop(name: str) -> Any:
        return ok(await engine.delete_collection(name))

    @app.put("/collections/{name}/index")
    async def index(name: str, body: dict[str, Any]) -> Any:
        schema = models.PayloadSchemaType(body["field_schema"])
        await engine.create_payload_index(await store.real(name), body["field_name"], schema)
        return ok({"operation_id": 1, "status": "completed"})

    @app.post("/collections/{name}/points/batch")
    async def update(name: str, body: dict[str, Any]) -> Any:
        count = await store.update(name, UPDATE_OPERATIONS.validate_python(body["operations"]))
        return ok([{"operation_id": 1, "status": "completed"}] * count)

    @app.post("/collections/{name}/points/query/batch")
    async def query(name: str, body: dict[str, Any]) -> Any:
        requests = [models.QueryRequest.model_validate(each) for each in body["searches"]]
        answers = await engine.query_batch_points(await store.real(name), requests)
        return ok([{"points": [{**_scored(point), "version": 0} for point in answer.points]} for answer in answers])

    @app.post("/collections/{name}/points/scroll")
    async def scroll(name: str, body: dict[str, Any]) -> Any:
        request = models.ScrollRequest.model_validate(body)
        records, following = await engine.scroll(
            await store.real(name),
            scroll_filter=request.filter,
            limit=request.limit or 10,
            order_by=request.order_by if isinstance(request.order_by, models.OrderBy) else None,
            offset=str(request.offset) if request.offset is not None else None,
        )
        points = [{"id": record.id, "payload": record.payload} for record in records]
        return ok({"points": points, "next_page_offset": following})

    @app.post("/collections/{name}/points")
    async def retrieve(name: str, body: dict[str, Any]) -> Any:
        records = await engine.retrieve(
            await store.real(name),
            [str(each) for each in body["ids"]],
            with_payload=body.get("with_payload", True),
            with_vectors=body.get("with_vector", False),
        )
        return ok([{"id": r.id, "payload": r.payload, "vector": _vectors(r.vector)} for r in records])

    @app.post("/collections/{name}/points/count")
    async def count(name: str, body: dict[str, Any]) -> Any:
        request = models.CountRequest.model_validate(body)
        return ok({"count": (await engine.count(await store.real(name), count_filter=request.filter)).count})

    return app


def _scored(point: Any) -> dict[str, Any]:
    return {"id": point.id, "score": point.score, "payload": point.payload, "vector": _vectors(_vector_of(point))}


def _vector_of(point: Any) -> Any:
    return getattr(point, "vector", None)


def _vectors(vector: Any) -> Any:
    if not isinstance(vector, dict):
        return None
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in vector.items()}


# ---- gRPC ----


def _field_type(number: int) -> models.PayloadSchemaType:
    names = {
        q.FieldType.FieldTypeKeyword: models.PayloadSchemaType.KEYWORD,
        q.FieldType.FieldTypeInteger: models.PayloadSchemaType.INTEGER,
        q.FieldType.FieldTypeFloat: models.PayloadSchemaType.FLOAT,
    }
    return names[number]


class Collections(CollectionsServicer):
    """The calls on collections."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def CollectionExists(self, request: Any, context: Any) -> Any:
        found = await self._store.exists(request.collection_name)
        return q.CollectionExistsResponse(result=q.CollectionExists(exists=found))

    async def Get(self, request: Any, context: Any) -> Any:
        info = await self._store.info(request.collection_name)
        config, params = info.config, info.config.params
        assert isinstance(params.vectors, dict)
        result = q.CollectionInfo(
            status=q.CollectionStatus.Green,
            optimizer_status=q.OptimizerStatus(ok=True),
            segments_count=1,
            points_count=info.points_count,
            payload_schema={
                key: q.PayloadSchemaInfo(data_type=q.PayloadSchemaType.Keyword, points=0) for key in info.payload_schema
            },
            config=q.CollectionConfig(
                params=q.CollectionParams(
                    shard_number=params.shard_number,
                    on_disk_payload=bool(params.on_disk_payload),
                    vectors_config=RestToGrpc.convert_vectors_config(params.vectors),
                    replication_factor=params.replication_factor,
                    write_consistency_factor=params.write_consistency_factor,
                    sparse_vectors_config=RestToGrpc.convert_sparse_vector_config(params.sparse_vectors or {}),
                ),
                hnsw_config=RestToGrpc.convert_hnsw_config(config.hnsw_config),
                optimizer_config=RestToGrpc.convert_optimizers_config(config.optimizer_config),
                wal_config=RestToGrpc.convert_wal_config(config.wal_config) if config.wal_config else None,
                quantization_config=(
                    RestToGrpc.convert_quantization_config(config.quantization_config)
                    if config.quantization_config
                    else None
                ),
            ),
        )
        return q.GetCollectionInfoResponse(result=result)

    async def Create(self, request: Any, context: Any) -> Any:
        def given(name: str, convert: Callable[[Any], Any] = lambda value: value) -> Any:
            return convert(getattr(request, name)) if request.HasField(name) else None

        wanted = models.CreateCollection(
            vectors=GrpcToRest.convert_vectors_config(request.vectors_config),
            sparse_vectors=GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config),
            shard_number=given("shard_number"),
            replication_factor=given("replication_factor"),
            write_consistency_factor=given("write_consistency_factor"),
            on_disk_payload=given("on_disk_payload"),
            hnsw_config=given("hnsw_config", GrpcToRest.convert_hnsw_config_diff),
            quantization_config=given("quantization_config", GrpcToRest.convert_quantization_config),
        )
        return q.CollectionOperationResponse(result=await self._store.create(request.collection_name, wanted))

    async def Delete(self, request: Any, context: Any) -> Any:
        result = await self._store.engine.delete_collection(request.collection_name)
        return q.CollectionOperationResponse(result=result)

    async def ListAliases(self, request: Any, context: Any) -> Any:
        found = await self._store.aliases()
        aliases = [q.AliasDescription(alias_name=name, collection_name=target) for name, target in found.items()]
        return q.ListAliasesResponse(aliases=aliases)

    async def UpdateAliases(self, request: Any, context: Any) -> Any:
        operations = [GrpcToRest.convert_alias_operations(each) for each in request.actions]
        return q.CollectionOperationResponse(result=await self._store.change_aliases(operations))


class Points(PointsServicer):
    """The calls on points."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        name = await self._store.real(request.collection_name)
        await self._store.engine.create_payload_index(name, request.field_name, _field_type(request.field_type))
        return q.PointsOperationResponse(result=_completed())

    async def UpdateBatch(self, request: Any, context: Any) -> Any:
        operations = [GrpcToRest.convert_points_update_operation(each) for each in request.operations]
        count = await self._store.update(request.collection_name, operations)
        return q.UpdateBatchResponse(result=[_completed()] * count)

    async def QueryBatch(self, request: Any, context: Any) -> Any:
        requests = [GrpcToRest.convert_query_points(each) for each in request.query_points]
        answers = await self._store.engine.query_batch_points(await self._store.real(request.collection_name), requests)
        return q.QueryBatchResponse(
            result=[
                q.BatchResult(
                    result=[
                        q.ScoredPoint(
                            id=RestToGrpc.convert_extended_point_id(point.id),
                            score=point.score,
                            payload=RestToGrpc.convert_payload(point.payload or {}),
                            vectors=_vectors_message(_vector_of(point)),
                        )
                        for point in answer.points
                    ]
                )
                for answer in answers
            ]
        )

    async def Scroll(self, request: Any, context: Any) -> Any:
        records, following = await self._store.engine.scroll(
            await self._store.real(request.collection_name),
            scroll_filter=GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None,
            limit=request.limit if request.HasField("limit") else 10,
            order_by=GrpcToRest.convert_order_by(request.order_by) if request.HasField("order_by") else None,
            offset=str(GrpcToRest.convert_point_id(request.offset)) if request.HasField("offset") else None,
        )
        reply = q.ScrollResponse(result=[_record(record) for record in records])
        if following is not None:
            reply.next_page_offset.CopyFrom(RestToGrpc.convert_extended_point_id(following))
        return reply

    async def Get(self, request: Any, context: Any) -> Any:
        wanted = GrpcToRest.convert_with_vectors_selector(request.with_vectors)
        records = await self._store.engine.retrieve(
            await self._store.real(request.collection_name),
            [str(GrpcToRest.convert_point_id(each)) for each in request.ids],
            with_vectors=wanted,
        )
        return q.GetResponse(result=[_record(record) for record in records])

    async def Count(self, request: Any, context: Any) -> Any:
        selection = GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None
        found = await self._store.engine.count(await self._store.real(request.collection_name), count_filter=selection)
        return q.CountResponse(result=q.CountResult(count=found.count))


def _completed() -> Any:
    return q.UpdateResult(operation_id=1, status=q.UpdateStatus.Completed)


def _record(record: Any) -> Any:
    return q.RetrievedPoint(
        id=RestToGrpc.convert_extended_point_id(record.id),
        payload=RestToGrpc.convert_payload(record.payload or {}),
        vectors=_vectors_message(_vector_of(record)),
    )


def _vectors_message(vector: Any) -> Any:
    plain = _vectors(vector)
    return RestToGrpc.convert_vector_struct_output(plain) if plain else None


class Guard(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc is untyped here
    """Checks the key, lets faults strike, and turns refusals into statuses.

    The server is gRPC's threaded one, and its handlers run on `loop`: two loops of a process that both use `grpc.aio`
    (the indexer under test has one too) log spurious errors of the poller that they share.
    """

    def __init__(self, faults: Faults, api_key: str | None, loop: asyncio.AbstractEventLoop) -> None:
        self._faults = faults
        self._api_key = api_key
        self._loop = loop

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Wrap the handler of a call."""
        handler = continuation(details)
        key = dict(details.invocation_metadata).get("api-key")

        async def answer(request: Any, context: Any) -> Any:
            if self._api_key is not None and key != self._api_key:
                raise Refusal(401, grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key")
            await self._faults.strike(details.method)
            return await handler.unary_unary(request, context)

        def guarded(request: Any, context: Any) -> Any:
            try:
                return asyncio.run_coroutine_threadsafe(answer(request, context), self._loop).result()
            except Refusal as refusal:
                if refusal.retry_after is not None:
                    context.set_trailing_metadata((("retry-after", str(refusal.retry_after)),))
                context.abort(refusal.grpc, refusal.message)
            except FlowdexError as error:
                context.abort(grpc.StatusCode.INTERNAL, f"Service internal error: {error}")

        return grpc.unary_unary_rpc_method_handler(
            guarded,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


# ---- serving ----


@dataclass(frozen=True)
class Tls:
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


async def serve(
    store: Store,
    faults: Faults,
    protocol: Protocol,
    port: int,
    *,
    api_key: str | None,
    tls: Tls | None,
    started: Callable[[int], None],
    ended: asyncio.Event,
) -> None:
    """Serve until `ended`; `started` is called with the port."""
    if protocol == "rest":
        config = uvicorn.Config(
            rest_app(store, faults, api_key),
            host="127.0.0.1",
            port=port,
            log_level="warning",
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
        rest = uvicorn.Server(config)
        rest.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(rest.serve())
        while not rest.started:  # noqa: ASYNC110 - uvicorn tells in no other way
            await asyncio.sleep(0.01)
        started(rest.servers[0].sockets[0].getsockname()[1])
        await ended.wait()
        rest.should_exit = True
        await serving
        return
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
    guard = Guard(faults, api_key, asyncio.get_running_loop())
    server = grpc.server(ThreadPoolExecutor(16), interceptors=[guard], options=options)
    add_CollectionsServicer_to_server(Collections(store), server)
    add_PointsServicer_to_server(Points(store), server)
    address = f"127.0.0.1:{port}"
    if tls is None:
        bound = server.add_insecure_port(address)
    else:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        bound = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    server.start()
    started(bound)
    await ended.wait()
    await asyncio.to_thread(server.stop(0.5).wait)


@dataclass
class Running:
    """A double in a thread of this process."""

    uri: str
    faults: Faults


@contextmanager
def running(
    directory: Path, protocol: Protocol, *, api_key: str | None = None, tls: Tls | None = None
) -> Iterator[Any]:
    """Run a double in a thread, on a free port."""
    faults, ready = Faults(), threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        box["loop"], box["ended"] = asyncio.get_running_loop(), asyncio.Event()
        store = Store(directory)

        def started(port: int) -> None:
            box["port"] = port
            ready.set()

        try:
            await serve(store, faults, protocol, 0, api_key=api_key, tls=tls, started=started, ended=box["ended"])
        finally:
            store.engine.close_now()

    thread = threading.Thread(target=partial(asyncio.run, main()), daemon=True)
    thread.start()
    assert ready.wait(30), "the double does not start"
    scheme = ("http" if protocol == "rest" else "grpc") + ("s" if tls else "")
    yield Running(f"{scheme}://127.0.0.1:{box['port']}", faults)
    box["loop"].call_soon_threadsafe(box["ended"].set)
    thread.join(20)


def main() -> None:
    """Run as a process, until killed; prints the port when it serves."""
    directory, port, protocol = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    async def run() -> None:
        store = Store(directory)
        started = partial(print, flush=True)
        await serve(
            store,
            Faults(),
            protocol,
            port,
            api_key=None,
            tls=None,
            started=started,
            ended=asyncio.Event(),  # type: ignore[arg-type]
        )

    asyncio.run(run())


if __name__ == "__main__":
    main()

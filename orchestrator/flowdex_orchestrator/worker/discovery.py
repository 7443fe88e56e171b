"""What an executor tells about itself: its endpoints with their document schemas, and its versions.

A stock Jina gateway asks for the schemas before it takes traffic, and refuses a flow whose executors do not fit.
"""

from __future__ import annotations

import logging
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from flowdex.proto import flowdex_pb2 as pb

if TYPE_CHECKING:
    from jina import Executor

__all__ = ["describe_endpoints", "describe_software"]

log = logging.getLogger(__name__)


def describe_endpoints(executor: Executor) -> pb.EndpointsProto:
    """Endpoints and schemas, in the form in which stock Jina's executors give them.

    A document type that has no JSON schema is left out: only a stock Jina gateway misses it.
    """
    from docarray.utils.create_dynamic_doc_class import create_pure_python_type_model
    from jina._docarray import LegacyDocumentJina
    from pydantic.errors import PydanticUserError

    legacy = LegacyDocumentJina.schema()

    def schema_of(model: Any) -> dict[str, Any]:
        schema: dict[str, Any] = model.schema()
        if schema != legacy:
            schema = create_pure_python_type_model(model).schema()
        return schema

    message = pb.EndpointsProto()
    message.endpoints.extend(executor.requests)
    message.write_endpoints.extend(executor.write_endpoints)
    schemas: dict[str, Any] = {}
    for endpoint, described in executor._get_endpoint_models_dict().items():
        try:
            for side in ("input", "output"):
                described[side]["model"] = schema_of(described[side]["model"])
            if described["parameters"]["model"] is not None:
                described["parameters"]["model"] = described["parameters"]["model"].schema()
        except (PydanticUserError, TypeError, ValueError, AttributeError, KeyError) as error:
            log.warning("%s: no schema of its documents for stock Jina gateways: %s", endpoint, error)
            continue
        schemas[endpoint] = described
    json_format.ParseDict(schemas, message.schemas)
    return message


def describe_software() -> pb.JinaInfoProto:
    """Versions of the packages that matter; unlike stock Jina's answer, no environment variables."""
    message = pb.JinaInfoProto()
    for package in ("flowdex", "jina", "docarray", "grpcio", "protobuf"):
        try:
            message.jina[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    message.jina["python"] = platform.python_version()
    return message

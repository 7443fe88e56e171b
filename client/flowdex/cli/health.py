"""`flowdex health`: whether one gateway or executor takes requests, for the health check of a container.

    grpc://, grpcs://  --grpc.health.v1 Check-->  SERVING               exit code 0
    http://, https://  --GET /health/ready----->  200                   anything else: exit code 1, and why

A container asks every few seconds, so nothing is imported here but what the question needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flowdex.cli.main import Settings

if TYPE_CHECKING:
    from flowdex.transport.target import Target

__all__ = ["health"]

_SERVING = b"\x08\x01"  # HealthCheckResponse(status=SERVING); the client does without that package


@click.command()
@click.argument("url", required=False, envvar="FLOWDEX_HEALTH_URL")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Time to wait for an answer.",
)
@click.pass_context
def health(ctx: click.Context, url: str | None, timeout: float) -> None:
    """Ask a gateway or an executor whether it takes requests: exit code 0 if it does.

    URL is where it listens; without one FLOWDEX_HEALTH_URL, and without that the gateway of --url.

    \b
    Example:
      flowdex health
      flowdex health http://127.0.0.1:8080
      flowdex health grpc://127.0.0.1:52000
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.errors import Unavailable
    from flowdex.transport.target import Target

    settings = ctx.obj if isinstance(ctx.obj, Settings) else Settings()
    target = Target.parse(url or settings.url)
    wrong = _grpc(target, timeout) if target.scheme.startswith("grpc") else _http(target, timeout)
    if wrong:
        raise Unavailable(f"{target} takes no requests: {wrong}")
    click.echo(f"{target} takes requests.")


def _grpc(target: Target, timeout: float) -> str | None:
    """What is wrong; None if it is ready."""
    import grpc

    options: tuple[tuple[str, Any], ...] = (("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0))
    if target.secure:
        from flowdex.certificates import channel_credentials

        if target.tls_name is not None:
            options = (*options, ("grpc.ssl_target_name_override", target.tls_name))
        channel = grpc.secure_channel(target.authority, channel_credentials(target.certificates), options)
    else:
        channel = grpc.insecure_channel(target.authority, options)
    with channel:
        try:
            check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")  # without serialisers: bytes
            reply = check(b"", timeout=timeout)
        except grpc.RpcError as error:
            from flowdex.transport.handshake import explain_handshake

            if error.code() is grpc.StatusCode.UNAVAILABLE and (found := explain_handshake(target)):
                raise found from None
            return f"{error.code().name.lower().replace('_', ' ')} ({error.details()})"
    return None if reply == _SERVING else "it is not ready"


def _http(target: Target, timeout: float) -> str | None:
    """What is wrong; None if it is ready."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    connection = HTTPConnection(target.host, target.port, timeout=timeout)
    if target.secure:
        context = None if target.certificates is None else target.certificates.client_context()
        connection = HTTPSConnection(target.host, target.port, timeout=timeout, context=context)
    try:
        connection.request("GET", f"{target.path}/health/ready")
        status = connection.getresponse().status
    except TimeoutError as error:  # no question of certificates, and there is no time to ask again
        return str(error)
    except (OSError, HTTPException) as error:
        from flowdex.transport.handshake import explain_handshake

        if found := explain_handshake(target):
            raise found from None
        return str(error) or type(error).__name__
    finally:
        connection.close()
    return None if status == 200 else f"it answers with status {status}"

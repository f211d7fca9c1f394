"""One HTTP transport (aiohttp). Foreign exceptions become a `Fault` here, once; what they mean for the bill is decided here too.

The line that matters: did any byte of the request leave? Before that nothing can have been billed; after it, a missing answer may have been worked for.
"""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
from yarl import URL

from batchllm.core.nouns import Fault, Kind
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpCall, HttpReply

_MAX_BODY_BYTES = 256 * 2**20
_CONNECT_SECONDS = 10.0


class HttpTransport:
    """One connection pool for a run. Create it inside the loop."""

    def __init__(self) -> None:
        # limit=0: the gate alone decides how much is in flight, and nobody waits for a pool slot inside a timeout.
        # keepalive below the 5 s after which common servers close: a POST on a dead connection is an ambiguous outcome.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4, ttl_dns_cache=60)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "batchllm"},
            skip_auto_headers=("Content-Type",),
            max_line_size=64 * 1024,
            max_field_size=64 * 1024,
        )
        self._urls: dict[str, URL] = {}

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        """The complete reply, or the fault that kept it from coming. Never raises for what the network or the server did."""
        url = self._urls.get(call.url)
        if url is None:
            url = self._urls[call.url] = URL(call.url)
        headers = {name: value.reveal() if isinstance(value, Secret) else value for name, value in call.headers.items()}
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session.request(call.method, url, data=call.body, headers=headers, allow_redirects=False) as response,
            ):
                body = await response.read() if (response.content_length or 0) <= _MAX_BODY_BYTES else b""
                return HttpReply(status=response.status, body=body, headers={name.lower(): value for name, value in response.headers.items()})
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                return _unreachable(f"no connection to {url.host} within {_CONNECT_SECONDS:.0f} s")
            return Fault(kind=Kind.TIMEOUT, message=f"no complete answer within {timeout_seconds:g} s", billed="maybe")
        except aiohttp.ClientConnectorDNSError:
            return _unreachable(f"the name {url.host} can't be resolved; is base_url right, is the network up?")
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError) as error:
            return _unreachable(f"TLS to {url.host} failed: {_words(error)}")
        except aiohttp.ClientConnectorError as error:
            return _unreachable(f"can't connect to {url.host}:{url.port}: {_words(error)}")
        except aiohttp.ServerDisconnectedError:
            return Fault(kind=Kind.NETWORK, message="the server closed the connection without an answer", billed="maybe")
        except aiohttp.ClientPayloadError as error:
            return Fault(kind=Kind.NETWORK, message=f"the answer was cut short: {_words(error)}", billed="maybe")
        except aiohttp.ClientResponseError as error:
            return Fault(kind=Kind.PROTOCOL, message=f"not understood as HTTP: {error.message}", billed="maybe")
        except (aiohttp.ClientError, OSError) as error:
            return Fault(kind=Kind.NETWORK, message=f"the connection broke: {_words(error)}", billed="maybe")

    async def close(self) -> None:
        """Ends open connections."""
        await self._session.close()


def _unreachable(message: str) -> Fault:
    return Fault(kind=Kind.UNREACHABLE, message=message, billed="no", counts=False)


def _words(error: BaseException) -> str:
    cause = getattr(error, "os_error", None) or error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__

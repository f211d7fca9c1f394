"""What a gateway in front of a provider says: HTML pages, empty bodies, a redirect. The same before every provider, and in no provider's own form.

The trap for clients: none of it is JSON, so only the status tells what happened. The `server` header marks a reply as the gateway's: the provider's headers are
missing from it.
"""

from __future__ import annotations

from batchllm.simulator.dialect import ErrorReply

_SERVER = "nginx/1.22.1"
_REASONS = {
    413: "Request Entity Too Large",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
    524: "A timeout occurred",
}
_STATUS = {"413": 413, "502": 502, "503_html": 503, "504": 504, "524": 524}


def reply(name: str) -> ErrorReply | None:
    """The gateway's reply for a fault; None when it isn't one of a gateway."""
    if name in _STATUS:
        return ErrorReply(status=_STATUS[name], headers={"content-type": "text/html", "server": _SERVER}, body=_page(_STATUS[name]))
    if name == "html_200":
        page = b"<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>"
        return ErrorReply(status=200, headers={"content-type": "text/html", "server": _SERVER}, body=page)
    if name == "empty_200":
        return ErrorReply(status=200, headers={"content-type": "application/json"}, body=b"")
    if name == "redirect":
        return ErrorReply(status=302, headers={"location": "https://login.example.com/"}, body=b"")
    return None


def _page(status: int) -> bytes:
    title = f"{status} {_REASONS[status]}"
    return f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n".encode()

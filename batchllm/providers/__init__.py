"""Wire codecs without I/O: a request in, an HTTP call out; an HTTP reply in, a `Reply` or a classified `Fault` out. Nothing here awaits, waits or retries."""

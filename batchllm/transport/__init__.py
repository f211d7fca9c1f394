"""Sockets: the only room that imports aiohttp."""

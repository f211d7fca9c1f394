"""The Python API (contract 4)."""

"""The store: one SQLite file that is the truth about a job. Only this package imports sqlite3.

One writer with grouped commits (`writer`), the schema and its migrations (`schema`), the lock that makes a second run impossible (`lock`),
matching of input rows to stored ones (`intake`), and read-only questions (`read`).
"""

from batchllm.store.lock import StoreLock, is_locked
from batchllm.store.records import Answer, AttemptEnd, AttemptStart, Deployment, History, Known, Totals
from batchllm.store.store import Store

__all__ = [
    "Answer",
    "AttemptEnd",
    "AttemptStart",
    "Deployment",
    "History",
    "Known",
    "Store",
    "StoreLock",
    "Totals",
    "is_locked",
]

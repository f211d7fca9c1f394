"""Admission: who may send now. All dimensions - requests, tokens, slots, money - are taken together or not at all, in FIFO order."""

from batchllm.admit.admission import Admission, Closed, Evicted, Lease
from batchllm.admit.bucket import Bucket
from batchllm.admit.group import LimitGroup
from batchllm.admit.purse import Purse

__all__ = ["Admission", "Bucket", "Closed", "Evicted", "Lease", "LimitGroup", "Purse"]

"""Admission: who may send now. All dimensions - requests, tokens, slots, money - are taken together or not at all, in FIFO order."""

from batchllm.admit.admission import Admission, Closed, Divide, Evicted, Lease, Part, TooDear
from batchllm.admit.allowance import Allowance
from batchllm.admit.bucket import Bucket
from batchllm.admit.charging import Charging, charging
from batchllm.admit.group import LimitGroup
from batchllm.admit.purse import Purse

__all__ = [
    "Admission",
    "Allowance",
    "Bucket",
    "Charging",
    "Closed",
    "Divide",
    "Evicted",
    "Lease",
    "LimitGroup",
    "Part",
    "Purse",
    "TooDear",
    "charging",
]

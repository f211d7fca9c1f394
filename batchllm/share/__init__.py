"""Runs of one user on one machine find each other, and keep the limits of an account that they have in common, without a server.

Every run has a file of its own that it holds locked as long as it lives; who takes the room's lock reads all of them and decides about its own part only.
"""

from batchllm.share.account import Account, account_of
from batchllm.share.claim import Claim, Grant
from batchllm.share.folder import state_folder
from batchllm.share.ledger import DayLedger
from batchllm.share.seat import Seat, running

__all__ = ["Account", "Claim", "DayLedger", "Grant", "Seat", "account_of", "running", "state_folder"]

"""The simulated provider without sockets: an HTTP call goes in, a script of what the server would do comes out.

`Simulator` decides (content, limits, faults, bill), somebody else acts: `SimulatedTransport` in this process, `batchllm.server` over real sockets. So one oracle
serves both, on any clock. A dialect is only parsing and encoding; everything about money, limits and faults is shared by all of them.
"""

from batchllm.simulator.inprocess import SimulatedTransport
from batchllm.simulator.provider import Simulator
from batchllm.simulator.settings import Settings

__all__ = ["Settings", "SimulatedTransport", "Simulator"]

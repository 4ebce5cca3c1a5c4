"""A worker that does all that it is told and serves nothing, so that there can be very many."""

import os
import signal
import socket
import sys

from mlpserve.server.system import signals
from mlpserve.server.workers.connection import Connection
from mlpserve.server.workers.rpc import Handler, RpcChannel
from mlpserve.server.workers.shared_generation import SharedGeneration

signals.block()
connection = Connection(socket.socket(fileno=int(sys.argv[1])))
generation = SharedGeneration.attach(connection.receive().descriptors[0])
handlers: dict[str, Handler] = {
    **dict.fromkeys(("begin", "heartbeat", "reload"), lambda: None),
    "load": lambda *_, **__: None,
    "prepare": lambda **_: None,
    "activate": lambda **_: None,
    "open": lambda: "nothing",
    "metrics": lambda **_: {"mlpserve_workers": [([], 1)]},
}
channel = RpcChannel(connection, handlers, on_end=lambda: os.kill(os.getpid(), signal.SIGTERM))
signal.sigwait({signal.SIGTERM})

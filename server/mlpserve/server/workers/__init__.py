"""Worker processes that serve on one port, and their supervisor.

    supervisor -- pool -- process ==== rpc over a connection ==== handlers -- the server
    (parent)              (a worker,                              (in the worker; its
                           seen from the parent)                   program is `worker`)

A new rpc method of a worker is a line of the table in `handlers`, and its call in `process`; one of
the supervisor is a line of the table there. `heartbeat` finds workers that hang. All but `handlers`
import neither NumPy nor gRPC: the parent must not, and a worker only when its signals are blocked.
"""

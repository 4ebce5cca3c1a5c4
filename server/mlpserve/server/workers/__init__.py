"""Several processes that serve on one port, and their parent.

    supervisor -- supervised_crew -- process ==== conversation ==== duties -- the server
    (parent)      (says to all        (a worker,   (calls over a      (a worker: its program
                   what to load)       from here)   channel)           is `worker`)

`vigil` finds workers that hang. All but `duties` import neither NumPy nor gRPC: the parent must
not, and a worker only when its signals are blocked.
"""

"""Models that are served: which versions are found, checked, loaded, changed over to and let go.

    models folder --scanner--> FolderState --selection--> Plan --snapshots--> WorkerPool

`controller` goes through this whenever `watcher` or a caller asks for it; versions that fail their
checks are in `quarantine`. All but `generations` and `loader`, which are for the processes that
serve, import neither NumPy nor gRPC.
"""

"""How models come and go while a server serves: found, checked, changed over, let go.

    models folder --scanning--> FolderState --selection--> Plan --snapshots--> Crew --> Generations

`controller` goes through this whenever `watching` or a person asks; what fails its checks is in
`quarantine`. Where the models are in an object store, `mlpserve.model.sync` keeps a local folder
equal to it. Among the versions that are served, `splitting` chooses who answers, and `shadow`
compares. All but these two, `generations` and `loading`, which are for the processes that serve,
import neither NumPy nor gRPC.
"""

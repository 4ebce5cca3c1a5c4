"""Sync: keeps a local models folder equal to one in an object store.

`synchronizer` compares the two and copies what differs, `follower` does so again and again. `store`
lists and reads an object store, `local_copy` changes the folder. Needs no NumPy.
"""

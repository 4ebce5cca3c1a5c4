"""What a server is told: what each setting is, where its value comes from, and all of them at once.

`declarations` says what a setting is, `config` declares the server's, `sources` reads them.
"""

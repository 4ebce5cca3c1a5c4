"""Who may call: TLS, bearer tokens, and the files that say so, read anew when they change."""

"""Who may use the server, how much, from where, and what is written down about it."""

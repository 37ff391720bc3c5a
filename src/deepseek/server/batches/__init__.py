"""Files and batches: many requests in a file, answered beside everything else and kept over a restart.

Lives here: `database` (SQLite, one thread, one process), `records` (what is stored, and what clients see of it),
`files` and `jobs` (what may be done to them), `lines` (what a batch's file must hold), `caller` (a line as a request
within the process), `runner` (which line runs when) and `offline` (the same for one file, without a server).
What may not: a way to answer a line that is not the route's own.
"""

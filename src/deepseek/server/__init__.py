"""HTTP: the APIs that clients already speak, over an engine in the same process.

Lives here: `server_config` (every flag, once), `app` (puts the parts together), `gate` (what every request passes
before its route), `routes/` (a file a family of routes), `protocol/` (what requests and answers look like),
`generation` (from a checked request to deltas; all routes that generate share it), `chat` (messages to a prompt, text
to reasoning, content and calls), `parsing/` (the parsers for that) and `studio/` (static pages).
What may not: PyTorch, arithmetic on tensors, a second copy of an engine's default.
"""

"""One file a family of routes; each has a `router`. They check, translate and answer; `generation` does the work."""

"""The web page that the server serves at `/`: plain JavaScript modules and CSS, no build step, works offline.

`files` hands out its files by name. Nothing here knows the HTTP framework or the engine; the page speaks to the server
through the same public API as every other client.
"""

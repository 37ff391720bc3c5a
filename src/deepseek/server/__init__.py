"""HTTP: what the engine can do, as the APIs that clients already speak."""

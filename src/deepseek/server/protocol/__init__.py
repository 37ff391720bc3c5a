"""What requests and answers look like: Pydantic models for what comes in, msgspec structures for what goes out."""

"""The websocket edge: handshakes, connections and outlets, under our uvicorn classes or any ASGI server."""

"""The fan-out engine: synchronous and without I/O. `now` is an argument; `hub.node` drives it."""

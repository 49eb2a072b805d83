"""tradewire's hub. Kept empty: the consumer imports `hub.protocol` and must not pay for a web framework."""

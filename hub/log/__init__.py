"""Where acknowledged messages live: behind the interface of hub.core.ledger."""

"""The bots that REST can ask: the registry and what answers for each."""

"""The secondary mount: freqtrade's REST over a BotAPI, publishing over HTTP, and the public routes."""

"""The main job `make run`: a hub, a producer that replays real candles and a consumer that trades them, as processes."""

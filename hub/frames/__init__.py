"""Dataframes: columns, their encodings on both wires, and the candle store. Pure: no I/O, no clock."""

"""Runnable examples: `python -m examples.run` is the main job; the others are short scripts, one per use."""

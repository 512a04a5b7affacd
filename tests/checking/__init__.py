"""Judges of what clients saw: of a run in the simulator, and of real processes alike.

``history.py`` is what a run leaves behind. Every checker is a function of it (and of what really
happened, where that is known) that raises ``ViolationError``.
"""

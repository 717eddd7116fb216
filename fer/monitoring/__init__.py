"""Drift: whether a model now sees and says something else than it used to."""

"""Plots, curves, the model card and self-contained HTML pages."""

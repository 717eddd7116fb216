"""Prefect flows. Thin: each task calls one function of `fer` or runs one DVC stage."""

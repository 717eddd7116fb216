"""`fer doctor`: is everything here that a workflow needs, and does it work?

Each check does the thing rather than look at its settings: it predicts, writes, reads, asks.
"""

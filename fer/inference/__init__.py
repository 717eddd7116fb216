"""Expressions in pictures: reading, recognising, recording. Imports no TensorFlow."""

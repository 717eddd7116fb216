"""Evaluation of a trained model: figures, intervals, calibration, the quality gate."""

"""Two-phase training of EfficientNetB2 in Keras 3, for any of its backends."""

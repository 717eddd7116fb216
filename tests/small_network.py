"""A training script's beginning in which a small network stands for EfficientNetB2.

Its arguments are the prepared table, params.yaml and a folder. Its batch norm is the project's own,
which is fused in float32 alone.
"""

SCRIPT = """
import json, sys
from pathlib import Path

import keras
import fer.training.train as module
from fer.dataset.table import FaceTable
from fer.params import load_params
from fer.training.batch_norm import BatchNormalization, with_fused_batch_norm
from fer.training.checkpoint import Checkpoint
from fer.training.devices import configure

faces, params_file, folder = map(Path, sys.argv[1:])

def small():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(16, 3, strides=4)(x)
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization(name="norm")(x))
    return with_fused_batch_norm(keras.Model(inputs, x, name="backbone"))

module.build_backbone = small
params = load_params(params_file)
"""

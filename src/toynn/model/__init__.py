"""The description of a model: its shape, its table of weights, initial values, and the values of a trained model."""

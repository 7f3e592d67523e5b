"""The description of a model: its shape, its table of weights, their initial values, and a trained model."""

"""The description of a model: its shape, its weights, how they start."""

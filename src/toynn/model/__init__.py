"""What a model is: its shape, its table of weights, their initial values, and the values of a trained model."""

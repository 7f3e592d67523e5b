"""Oracles: simple implementations of the model in float64, with which the tests compare toynn."""

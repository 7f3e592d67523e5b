"""Oracles: simple second implementations in float64 with which the tests compare toynn."""

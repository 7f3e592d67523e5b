"""Oracles: second implementations in float64, deliberately plain, that the tests compare toynn with."""

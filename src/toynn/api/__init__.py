"""The API for users who work with text and never build a graph. It implements `toynn.load`, `prepare` and `train`.

The command line calls this API too. This file exports no names: import the names from `toynn`, or from their modules.
"""

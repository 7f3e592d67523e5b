"""The API for users who work with text and never build a graph: what `toynn.load`, `prepare` and `train` are made of.

The command line calls it too. Each name is imported from its module, or from `toynn` itself.
"""

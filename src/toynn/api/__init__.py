"""The API for users who work with text and never build a graph: the code behind `toynn.load`, `prepare` and `train`.

The command line calls it too. Each name is imported from its module, or from `toynn` itself.
"""

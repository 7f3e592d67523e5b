"""Choose a model and its training for a given time, and predict its loss.

recipe.py    the shapes that a plan chooses from, and the settings of their training
law.py       the scaling law: the validation loss for a size, a number of steps and a text
speed.py     the seconds of a step on this machine, and the memory
plan.py      the choice
"""

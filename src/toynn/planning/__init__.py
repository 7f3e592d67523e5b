"""Choose a model and its training for a given time, and predict its loss.

recipe.py      the shapes that a plan chooses from, and the settings of their training
law.py         the scaling law: the validation loss for a size, a number of steps and a text
correction.py  the correction of the law near the measured runs, and its uncertainty
speed.py       the seconds of a step on this machine, and the memory
choice.py      the choice of a shape and of a number of steps
plan.py        the plan
"""

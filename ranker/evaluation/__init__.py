"""How good predictions are, with intervals, and which of two models is better.

`evaluate.evaluate_task` is the way in; `compare.compare` turns its results into verdicts.
"""

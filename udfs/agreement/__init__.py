"""How well scores and ratings agree; numpy and scipy only.

correlation.py  correlations with intervals, error, calibration
ranking.py      whether better captions score above worse ones
resampling.py   bootstrap intervals by cluster
plot.py         the figure of an evaluation
"""

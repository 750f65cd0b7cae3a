"""How far scores and ratings agree; plain numpy.

correlation.py  correlations with intervals, error, calibration
ranking.py      whether better captions come out above worse ones
resampling.py   bootstrap intervals by cluster
plot.py         the picture of an evaluation
"""

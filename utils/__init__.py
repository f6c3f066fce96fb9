"""Everything but Paddle, in rooms; imports run one way:

scripts -> models -> datasets, reports -> answers -> pictures -> ecg -> running
"""
import os

os.environ['MPLBACKEND'] = 'agg'  # one that is not there would end the import of matplotlib

"""Everything but Paddle, in rooms; imports run one way:

scripts -> models -> datasets, reports -> answers -> pictures -> ecg -> running
"""

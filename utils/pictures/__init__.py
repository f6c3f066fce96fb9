"""A signal's picture, its changes in training, and pictures in batches.

Imports utils.ecg and utils.running.
"""

"""What is asked of an ECG, how good an answer is, how sure, and what it rests on.

Imports utils.pictures, utils.ecg and utils.running.
"""

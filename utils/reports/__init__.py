"""What a person looks at: curves, scores, ECGs, the page of a report.

Imports utils.answers, utils.pictures, utils.ecg and utils.running.
"""

"""What an ECG is, and reading one from any file; in paper/ from a picture of a sheet.

Imports utils.running.
"""

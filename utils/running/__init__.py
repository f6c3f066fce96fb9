"""What any script needs: settings, errors, files, the log, the machine, processes, work beside.

Imports nothing of ours.
"""

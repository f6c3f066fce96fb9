"""Where ECGs come from that nobody has to bring: made-up ones, PTB-XL.

Imports every other room of utils.
"""

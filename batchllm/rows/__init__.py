"""Rows: from input files to filled requests.

A record walks `files -> read -> draft -> request`; what is wrong with one record is data on its row and never ends the stream. Nothing here knows of
models' prices, of time or of the network, and nothing holds more than a chunk of rows.
"""

"""Addresses, prefixes and VNIs: which are free, which are allowed, and how they are taken.

``plan`` is pure arithmetic; ``claims`` turns its answers into compares and writes. Reads ``claim/address/…`` and
``spec/network/…``, writes ``claim/…`` and ``budget/subnets``, always inside the caller's transaction. Must hold: no
address, prefix or VNI is ever given twice, and no two networks overlap, whoever asks at the same time.
"""

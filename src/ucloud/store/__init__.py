"""The cloud's only state: etcd, behind a small interface that an in-memory store fulfils as well.

``api`` is the interface, ``etcd`` and ``memory`` fulfil it (one contract suite for both), ``keys`` is the only
place that spells a key and says who writes it, ``codec`` turns model values into versioned JSON, ``cache`` is a
watch-fed copy of some prefixes, ``election`` makes one of several processes the leader.

Must hold: no blind put (every write is a transaction that compares what was read); a watch only wakes.
"""

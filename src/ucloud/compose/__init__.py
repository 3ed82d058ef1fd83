"""Specs and placements → each host's wanted documents, and the end of what was deleted.

Reads everything of ``store.view.PREFIXES`` and secret/user_data; writes wanted/…, secret/host/…, and removes specs,
placements and claims of what is gone, and all that is stored of removed hosts but their marks. Runs in the elected
scheduler process, every write compares the election. Must hold: a document disappears only after its host has reported
``gone``, or with its host; a host's document of a VM that was placed elsewhere becomes a tombstone, it never just
vanishes.
"""

"""The one loop shape: keys wake a worker, the worker looks at the world and acts; the next pass is the only retry.

``queue`` keeps each key once and never runs one key twice at the same time; ``loop`` runs workers on it, with
backoff after errors and a resync that makes a lost wake-up harmless. It knows nothing of what the keys mean.
"""

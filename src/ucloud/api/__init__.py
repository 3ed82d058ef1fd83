"""The HTTP API under ``/v1``: the only way to change the cloud, for people and for programs.

``app`` makes the Flask application, ``routes`` shows the whole API on one screen, one module per noun has its
handlers, ``schemas`` what goes over the wire, ``problems`` turns errors into answers, ``writes`` is the one way in
which a change is committed, ``process`` runs it all under gunicorn. Reads everything but ``secret/`` from a
watch-fed cache; writes ``spec/``, ``claim/``, ``budget/``, ``event/`` and ``secret/user_data/``.

Must hold: every write compares what it was planned on; no answer contains a secret; nothing is half made.
"""

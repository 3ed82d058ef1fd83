"""The command line: a client of the API only, it never looks at etcd or at this machine's VMs.

``commands`` is the door: it adds the commands to a parser and runs one. ``parser`` and ``values`` understand what was
typed, ``nouns`` has what all nouns share and one module per noun the rest, ``tables`` ``columns`` ``human`` are the
pure rendering, ``progress`` shows waits, ``failures`` turns errors into one line and an exit code.

Must hold: standard output carries only the answer (stable JSON with ``--output json``), all else goes to standard
error.
"""

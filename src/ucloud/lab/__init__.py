"""``ucloud lab``: a whole cloud on one machine, for trying, testing and teaching. Every node is a network namespace.

``nodes`` which nodes there are (pure) · ``layout`` where a lab keeps what · ``settings`` each node's configuration ·
``wires`` namespaces, switch and cables · ``census`` which processes belong to which node · ``power`` and ``lifecycle``
on, off, up, down · ``faults`` what can go wrong, and undoing it · ``recorder`` one history with one clock · ``checker``
what a history proves (pure) · ``scenario`` steps from a file · ``driver`` the door for commands, tests and benchmarks.

Must hold: a lab touches only what is in its own namespaces and directory, whatever else runs on the machine; the wires
between its nodes know IPv6 only; ``down`` leaves nothing behind, also after any of its processes was killed.
"""

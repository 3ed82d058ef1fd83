"""The guard: parent of this host's QEMU processes and keeper of its life sign.

Keys it writes: ``alive/<host>`` on its lease and ``registered/<host>``; it reads ``fenced/<host>/<incarnation>``.
VMs that may be started elsewhere live in a PID namespace that dies with the guard; the others outlive it and are
found again by its successor.

Must hold: no VM runs twice under it; it kills only what is named with its exact generation and boot; a store that
is down changes nothing for running VMs; nothing here forks outside the main thread.
"""

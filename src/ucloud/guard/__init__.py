"""The guard: parent of this host's QEMU processes, keeper of its life sign, and the one who ends them without evidence.

Keys it writes: ``alive/<host>`` on its lease and ``registered/<host>``; it reads ``fenced/<host>/<incarnation>`` and
``site/members``. VMs that may be started elsewhere ("mortals") live in a PID namespace that dies with the guard; the
others outlive it and are found again by its successor.

Threads: the main one serves requests, forks, reaps and writes files (``process``, ``processes``); one per etcd member
looks for evidence and one asks keepers (``witnesses``); one keeps the traffic gate (``traffic``); one fences
(``fencer``). What they conclude is decided by pure functions (``rules``) on one value (``life``).

Must hold: no VM runs twice under it; it kills only what is named with its exact generation and boot, and mortals when
it has had no evidence for F; a store that is down for less changes nothing for running VMs, one that is wholly down
nothing at all as long as all keepers say so; nothing here forks outside the main thread; only the main thread may wait
for a disk.
"""

"""The hypervisor room: makes one host's VMs run, stop and come back as wanted.

It renders QEMU's command line, speaks QMP, asks the guard (the parent of all QEMU processes) to start and kill them,
and decides by ``migration_plan.plan_pass`` (moves between hosts) and ``plan.plan_vm`` (all else), pure functions.
Doors, in the order of a pass: ``observe`` → ``plan`` → ``apply`` → ``seen``. ``fake`` is a hypervisor without QEMU,
proven by the same contract tests.

Keys of the store: none. It is given ``WantedVm`` documents and returns ``SeenVm`` reports; what it must remember it
keeps in the VM's directory on this host (``machine.json``: what the guest sees and never changes by itself,
``record.json``: boots done, restarts, deadlines).

Must hold: one QEMU per VM at most; a guest is ended only by an explicit wish (power, boots, generation, tombstone);
what could not be observed is left alone; everything survives the agent's death at any point.
"""

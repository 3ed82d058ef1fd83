"""Decides where VMs run: feasible → rank → plan, pure functions on one immutable snapshot.

Reads spec/vm, spec/host, spec/image, placement, seen/…/host, alive. Writes placement (and events), in transactions
that compare the VM's spec, its placement and the election. Must hold: a decision is a function of the snapshot and
the request alone; a host never gets more than it can hold; every decision says why.
"""

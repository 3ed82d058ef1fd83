"""Decides where VMs run and move, and what is done about lost hosts: pure functions on one immutable view.

feasible → rank → plan → passes → commit place VMs; ``takeover`` and ``anew`` are the rules of failover, ``migrations``
and ``drain`` those of moving. Reads all of ``store.view.PREFIXES`` but wanted networks; writes placement, budget,
migration, and lock in a migration's move, in transactions that compare what was read and the election. Must hold: a
decision is a function of the view and the request alone; a host never gets more than it can hold; every decision says
why.
"""

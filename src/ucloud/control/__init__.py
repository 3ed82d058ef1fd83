"""The process ``ucloud scheduler``: of several, one is elected and runs the passes of scheduler and compose.

Layer 4: it wires layer-3 rooms that do not know each other, and does what the rules of takeovers say: it writes
takeover/… and fenced/…, and frees lock/… of fenced hosts. Must hold: every write of a pass compares the election, so
that one who lost it without noticing writes nothing; a pass never waits, but says when it wants to be woken.
"""

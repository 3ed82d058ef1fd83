"""A storage service with a fence verb: raw volumes of a directory, served to QEMU by NBD, one writer each.

access: who may write what (pure) · nbd: the protocol as values (pure) · faults: what goes wrong on purpose · volumes:
the files, and who wrote when · connection: one NBD client · server: the listener · control: acquire, release, fence and
faults by HTTP · client: how hosts and a takeover ask for that · nbd_client: for proofs · process: the program.

It is for labs, and shows what a pool of the kind "fenced" must do (docs/failover.md, C). Must hold: a write is done
only for the client that holds its volume at that moment; after ``fence`` was answered nothing of that client is
written any more.
"""

"""Makes its host look like the wanted documents, and reports what it sees.

Reads wanted/<itself>, placement and alive (for run locks), secret/host/<itself>. Writes seen/<itself> and
lock/<itself>. Layer 4: it composes the rooms of the host, which do not know each other. Must hold: it destroys only
by a tombstone or a newer generation; a guest's firewall stands before its first packet; no QEMU starts without the
run lock, and no guest goes on without it after a migration; stopping the agent touches no guest.
"""

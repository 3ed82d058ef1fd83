"""The firewall of a host: what each NIC may send, what guests may reach of the host, and address translation.

Reads no key and writes none: the agent hands it the NICs and networks of its host. What must always hold: a NIC's
frames pass only under its own rules, so a device without rules is mute; all rules change in one transaction.
"""

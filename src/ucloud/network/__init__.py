"""The networks of a host: VXLAN device, bridge, gateway namespace with DHCP, router advertisements and DNS, and taps.

Reads no key and writes none: the agent hands it the wanted documents of its host and reports what it returns. What must
always hold: nothing is removed but on a tombstone; every step may be cut short and repeated; guests keep what is here
when everything else of ucloud has stopped.
"""

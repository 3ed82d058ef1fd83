"""Consoles: bytes between a person and a VM's serial port.

``tunnel`` is the way from the stream process to the door of the agent that runs the VM. Reads and writes no keys.

Must hold: only whoever has a client certificate of this cloud gets through a door.
"""

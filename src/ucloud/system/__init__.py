"""The only doors to the machine.

run: processes · files: atomic and private files · clock: time · netlink: links, addresses, namespaces.
Nothing else in ucloud calls ``subprocess``, writes state files by hand or reads the clock for decisions.
"""

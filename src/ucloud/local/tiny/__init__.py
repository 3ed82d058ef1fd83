"""The recipe of the tiny guest: what it is made of and how its parts become a disk.

packages: Debian packages in, files out · modules: which kernel drivers, in which order · cpio: the initramfs ·
disk: boot partition, root partition, partition table · tree: the root file system · guest/: the files that run
inside the guest. Nothing here mounts anything or needs a device node; effects stay inside the work directory.
"""

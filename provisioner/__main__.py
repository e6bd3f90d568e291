"""`python -m provisioner` is `nfs-provisioner`."""

from provisioner.cli import main

main()

"""`python -m provisioner` runs `nfs-provisioner`."""

from provisioner.cli import main

main()

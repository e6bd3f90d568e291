"""`python -m provisioner` runs `nfs-provisioner`."""

from provisioner.cli.main import main

main()

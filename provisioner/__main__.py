"""`python -m provisioner` is `nfs-provisioner`."""

from provisioner.cli.main import main

main()

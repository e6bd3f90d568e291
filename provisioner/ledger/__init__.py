"""The ledger: which directory belongs to which volume of one export, over any Tree, without NFS and Kubernetes."""

# Runs in the virtual machine: XFS and ext4 with project quotas, exported by the kernel's NFS server to itself.
set -e
exec 2>&1
for module in virtio_blk xfs ext4 quota_v2 nfsd; do
  modprobe $module 2>/dev/null || grep -q $module /proc/filesystems || echo "no module $module"
done
mkdir -p /srv/xfs /srv/ext4 /mnt
mkfs.xfs -q -K /dev/vda
mke2fs -q -t ext4 -O project,quota -E quotatype=prjquota,lazy_itable_init=0,nodiscard /dev/vdb
mount -o prjquota /dev/vda /srv/xfs
mount -o prjquota /dev/vdb /srv/ext4
options=rw,async,no_root_squash,insecure,no_subtree_check
echo "/srv/xfs *($options,fsid=1)" > /etc/exports
echo "/srv/ext4 *($options,fsid=2)" >> /etc/exports
mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
rpcbind -w
exportfs -ar
rpc.nfsd --grace-time 10 8
echo Y > /proc/fs/nfsd/v4_end_grace || true
rpc.mountd -p 20048
# Python keeps bytecode, which halves the start of each process on emulated processors.
export PYTHONPATH=/product
/usr/bin/python3 -m tests.integration.quota.inside

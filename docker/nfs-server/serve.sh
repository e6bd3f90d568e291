#!/bin/sh
# Writes Ganesha's configuration for the directories in EXPORTS and runs Ganesha.
set -eu
configuration=/run/ganesha/ganesha.conf
cat >$configuration <<CORE
NFS_CORE_PARAM {
  NFS_Port = 2049; MNT_Port = 20048; Protocols = 3, 4; mount_path_pseudo = true;
  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
  # The flag needs CAP_SYS_RESOURCE and matters only for servers with clients on the same machine.
  allow_set_io_flusher_fail = true;
}
NFSV4 { Graceless = true; Only_Numeric_Owners = true; RecoveryBackend = fs; }
NFS_KRB5 { Active_krb5 = false; }
LOG { Default_Log_Level = EVENT; }
CORE
number=0
for directory in $EXPORTS; do
  number=$((number + 1))
  mkdir -p "$directory"
  cat >>$configuration <<EXPORT
EXPORT {
  Export_Id = $number; Path = "$directory"; Pseudo = "$directory"; Access_Type = RW; Squash = No_Root_Squash;
  SecType = sys; Protocols = 3, 4; Transports = TCP; FSAL { Name = VFS; }
}
EXPORT
done
[ $number -gt 0 ] || { echo "EXPORTS is empty: name the directories to export" >&2; exit 2; }
rpcbind -w
exec ganesha.nfsd -F -L STDOUT -f $configuration -p /run/ganesha/ganesha.pid

{{- /* Reject values that would render but cannot work, and say what to change. */ -}}

{{- define "nfs-provisioner.check" -}}
{{- include "nfs-provisioner.checkNames" . -}}
{{- include "nfs-provisioner.checkImage" . -}}
{{- include "nfs-provisioner.checkReplicas" . -}}
{{- include "nfs-provisioner.checkExtras" . -}}
{{- include "nfs-provisioner.checkNumbers" . -}}
{{- include "nfs-provisioner.checkExports" . -}}
{{- include "nfs-provisioner.checkClasses" . -}}
{{- include "nfs-provisioner.checkQuotaAgent" . -}}
{{- end -}}

{{- define "nfs-provisioner.checkNames" -}}
{{- $full := include "nfs-provisioner.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $full) -}}
{{- fail (printf "the Service cannot be called %q: set fullnameOverride to lower-case letters, digits and -, starting with a letter" $full) -}}
{{- end -}}
{{- $label := include "nfs-provisioner.name" . -}}
{{- if not (regexMatch "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$" $label) -}}
{{- fail (printf "nameOverride %q cannot be a label: use letters, digits, -, _ and ." $label) -}}
{{- end -}}
{{- $name := include "nfs-provisioner.provisionerName" . -}}
{{- if hasPrefix "kubernetes.io/" $name -}}
{{- fail (printf "storageClass.provisionerName %q: names that start with kubernetes.io/ are the cluster's own; choose another name" $name) -}}
{{- end -}}
{{- $part := "[a-z0-9]([-a-z0-9]*[a-z0-9])?" -}}
{{- $domain := printf "%s(\\.%s)*" $part $part -}}
{{- $parts := splitList "/" (lower $name) -}}
{{- $short := and (le (len (last $parts)) 63) (le (len (first $parts)) 253) -}}
{{- if not (and $short (regexMatch (printf "^(%s/)?[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$" $domain) (lower $name))) -}}
{{- fail (printf "storageClass.provisionerName %q is not a valid provisioner name: use a name such as example.com/nfs" $name) -}}
{{- end -}}
{{- $reserved := list "app" "release" "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" -}}
{{- range $name, $labels := pick .Values "labels" "commonLabels" "podLabels" -}}
{{- range $key, $_ := $labels -}}
{{- if has $key $reserved -}}
{{- fail (printf "%s.%s: the chart sets this label itself and selects its pods by labels; choose another key" $name $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.checkImage" -}}
{{- if regexMatch "(@|:[^/]*$)" .Values.image.repository -}}
{{- fail (printf "image.repository %s contains a tag or a digest: set image.tag or image.digest instead" .Values.image.repository) -}}
{{- end -}}
{{- if not (regexMatch "^([A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?$" (.Values.image.tag | default "")) -}}
{{- fail (printf "image.tag %q is not a valid tag: use letters, digits, _, . and -" .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* What an extra adds must not be there already: the API server refuses a second one, or one of the two is ignored. */ -}}
{{- define "nfs-provisioner.checkExtras" -}}
{{- $own := dict -}}
{{- range include "nfs-provisioner.env" . | fromYamlArray -}}
{{- $_ := set $own .name true -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if hasKey $own .name -}}
{{- fail (printf "extraEnv: the chart sets %s itself, or another entry does: remove the entry, and set the value of the chart" .name) -}}
{{- end -}}
{{- $_ := set $own .name true -}}
{{- end -}}
{{- $volumes := list -}}
{{- range include "nfs-provisioner.mounts" . | fromJsonArray -}}
{{- $volumes = append $volumes .volume -}}
{{- end -}}
{{- range .Values.extraVolumes -}}
{{- if has .name $volumes -}}
{{- fail (printf "extraVolumes: there are two volumes called %s: choose another name" .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- fail (printf "extraVolumeMounts: there is no volume called %s: add it to extraVolumes" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.checkReplicas" -}}
{{- $elects := .Values.leaderElection.enabled -}}
{{- $replicas := include "nfs-provisioner.replicas" . | int -}}
{{- if lt $replicas 1 -}}
{{- fail "replicaCount=0 runs no provisioner: set 1 or more; to pause it, run kubectl scale deployment --replicas=0" -}}
{{- end -}}
{{- if and (gt $replicas 1) (not $elects) -}}
{{- fail "without leader election every replica acts: set replicaCount to 1, or leaderElection.enabled=true" -}}
{{- end -}}
{{- if and (eq (.Values.strategyType | default "") "RollingUpdate") (not $elects) -}}
{{- fail "strategyType=RollingUpdate without leader election lets the old and the new pod act concurrently: unset strategyType, or set leaderElection.enabled=true" -}}
{{- end -}}
{{- $lease := include "nfs-provisioner.seconds" .Values.leaderElection.leaseDuration | float64 -}}
{{- $renew := include "nfs-provisioner.seconds" .Values.leaderElection.renewDeadline | float64 -}}
{{- $retry := include "nfs-provisioner.seconds" .Values.leaderElection.retryPeriod | float64 -}}
{{- if not (and (gt $lease $renew) (gt $renew $retry) (gt $retry 0.0) (ge $lease 1.0)) -}}
{{- fail "leaderElection: leaseDuration must exceed renewDeadline, renewDeadline must exceed retryPeriod, retryPeriod must be above 0, and leaseDuration must be 1s or longer" -}}
{{- end -}}
{{- if le (include "nfs-provisioner.seconds" .Values.nfs.timeout | float64) 0.0 -}}
{{- fail "nfs.timeout=0 leaves no time for a call: set a duration such as 10s" -}}
{{- end -}}
{{- end -}}

{{- /* Seconds of a duration such as 1m30s, or of a number of seconds. */ -}}
{{- define "nfs-provisioner.seconds" -}}
{{- $seconds := 0.0 -}}
{{- range regexFindAll "[0-9]+(\\.[0-9]+)?(ms|s|m|h|d)?" (toString .) -1 -}}
{{- $unit := regexFind "[a-z]+$" . | default "s" -}}
{{- $number := trimSuffix $unit . | float64 -}}
{{- $seconds = addf $seconds (mulf $number (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) $unit)) -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{- /* The schema checks the bounds of numbers; this checks those of quoted numbers. */ -}}
{{- define "nfs-provisioner.checkNumbers" -}}
{{- if regexMatch "^(localhost|127\\..*|::1)$" .Values.listen.host -}}
{{- fail (printf "listen.host %s hides the endpoint from the kubelet's probes and from Prometheus: use 0.0.0.0 or ::" .Values.listen.host) -}}
{{- end -}}
{{- include "nfs-provisioner.within" (dict "name" "workers" "value" .Values.workers "most" 1024) -}}
{{- include "nfs-provisioner.within" (dict "name" "copies.parallel" "value" .Values.copies.parallel "most" 64) -}}
{{- include "nfs-provisioner.within" (dict "name" "copies.workers" "value" .Values.copies.workers "most" 128) -}}
{{- include "nfs-provisioner.within" (dict "name" "listen.port" "value" .Values.listen.port "most" 65535) -}}
{{- include "nfs-provisioner.within" (dict "name" "nfs.uid" "value" .Values.nfs.uid "least" 0 "most" 4294967294) -}}
{{- include "nfs-provisioner.within" (dict "name" "nfs.gid" "value" .Values.nfs.gid "least" 0 "most" 4294967294) -}}
{{- range $key := list "apiServerPorts" "nfsPorts" -}}
{{- range get $.Values.networkPolicy $key -}}
{{- include "nfs-provisioner.within" (dict "name" (printf "networkPolicy.%s" $key) "value" . "most" 65535) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.within" -}}
{{- $least := hasKey . "least" | ternary .least 1 -}}
{{- if or (lt (int64 .value) (int64 $least)) (gt (int64 .value) (int64 .most)) -}}
{{- fail (printf "%s is %v: it must be from %v to %v" .name .value $least .most) -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.checkExports" -}}
{{- if ne (.Values.nfs.reclaimPolicy | default "Retain") "Retain" -}}
{{- fail (printf "nfs.reclaimPolicy=%s applies to the volume of the export's root, which holds all other volumes: with Recycle, Kubernetes would remove them all, and nothing can carry out Delete. Unset nfs.reclaimPolicy, or set Retain" .Values.nfs.reclaimPolicy) -}}
{{- end -}}
{{- $seen := list -}}
{{- with .Values.nfs.server -}}
{{- include "nfs-provisioner.checkServer" (dict "name" "nfs.server" "server" .) -}}
{{- include "nfs-provisioner.checkPath" (dict "name" "nfs.path" "path" $.Values.nfs.path) -}}
{{- $seen = append $seen (include "nfs-provisioner.place" (list . $.Values.nfs.path)) -}}
{{- end -}}
{{- range $number, $export := .Values.exports -}}
{{- $name := printf "exports[%d]" $number -}}
{{- include "nfs-provisioner.checkServer" (dict "name" (printf "%s.server" $name) "server" .server) -}}
{{- include "nfs-provisioner.checkPath" (dict "name" (printf "%s.path" $name) "path" .path) -}}
{{- if regexMatch "[\\s=]" .path -}}
{{- fail (printf "%s.path %q contains a space or a =, which NFS_EXPORTS cannot express: make it nfs.path, or remove it here and name it in a class, with server and share" $name .path) -}}
{{- end -}}
{{- $place := include "nfs-provisioner.place" (list .server .path) -}}
{{- if has $place $seen -}}
{{- fail (printf "%s: %s is listed twice: keep one of the two" $name $place) -}}
{{- end -}}
{{- $seen = append $seen $place -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.checkServer" -}}
{{- if regexMatch "^([^:]*:[0-9]+|\\[.*\\]:[0-9]+)$" .server -}}
{{- fail (printf "%s %q contains a port: set only the name or the address here, and port=… in mountOptions" .name .server) -}}
{{- else if regexMatch "^[^:]*:[^:]*$" .server -}}
{{- fail (printf "%s %q is not a server name or address: set a DNS name or an IP address" .name .server) -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.checkPath" -}}
{{- if regexMatch "(^|/)\\.\\.?(/|$)" .path -}}
{{- fail (printf "%s %q has a . or .. component: write the export's path without it" .name .path) -}}
{{- end -}}
{{- end -}}

{{- /* SERVER:PATH in canonical spelling, from a list of both. */ -}}
{{- define "nfs-provisioner.place" -}}
{{- $server := first . | lower | trimPrefix "[" | trimSuffix "]" -}}
{{- $path := printf "/%s" (last . | trim | splitList "/" | compact | join "/") -}}
{{- printf "%s:%s" $server $path -}}
{{- end -}}

{{- define "nfs-provisioner.checkClasses" -}}
{{- $classes := ternary (prepend .Values.storageClasses .Values.storageClass) .Values.storageClasses .Values.storageClass.create -}}
{{- $names := list -}}
{{- $defaults := list -}}
{{- range $classes -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" .name) -}}
{{- fail (printf "a StorageClass cannot be called %q: use lower-case letters, digits, - and ." .name) -}}
{{- end -}}
{{- if has .name $names -}}
{{- fail (printf "two StorageClasses are called %s: rename one in storageClass or storageClasses, or set storageClass.create=false" .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- if include "nfs-provisioner.isDefault" . -}}
{{- $defaults = append $defaults .name -}}
{{- end -}}
{{- include "nfs-provisioner.checkRule" . -}}
{{- include "nfs-provisioner.checkPattern" . -}}
{{- if and (include "nfs-provisioner.parameter" (list . "autoGrow")) (not $.Values.autoGrow.enabled) -}}
{{- fail (printf "StorageClass %s has the parameter autoGrow, which needs the right to patch claims: set autoGrow.enabled=true, or remove the parameter" .name) -}}
{{- end -}}
{{- include "nfs-provisioner.checkExportOf" (dict "root" $ "class" .) -}}
{{- end -}}
{{- if gt (len $defaults) 1 -}}
{{- fail (printf "the StorageClasses %s are all the default: set defaultClass for one class only" (join ", " $defaults)) -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.isDefault" -}}
{{- $said := get (.annotations | default dict) "storageclass.kubernetes.io/is-default-class" -}}
{{- $beta := get (.annotations | default dict) "storageclass.beta.kubernetes.io/is-default-class" -}}
{{- if or (eq $said "true") (eq $beta "true") (and .defaultClass (ne $said "false")) -}}
true
{{- end -}}
{{- end -}}

{{- /* Each setting of a class must be given once: as a key of its own, or in its parameters. */ -}}
{{- define "nfs-provisioner.checkRule" -}}
{{- $class := . -}}
{{- range $key, $spellings := dict "pathPattern" (list "pathPattern" "subDir") "onDelete" (list "onDelete") -}}
{{- range $spelling := $spellings -}}
{{- if and (get $class $key) (include "nfs-provisioner.parameter" (list $class $spelling)) -}}
{{- fail (printf "StorageClass %s sets both %s and the parameter %s: keep one of them" $class.name $key $spelling) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.checkPattern" -}}
{{- $class := . -}}
{{- range list (get . "pathPattern" | default "") (include "nfs-provisioner.parameter" (list . "pathPattern")) (include "nfs-provisioner.parameter" (list . "subDir")) -}}
{{- if contains "{{" . -}}
{{- fail (printf "StorageClass %s: the pattern %q is a Go template: write variables as ${.PVC.namespace}, ${.PVC.name}, ${.PV.name}" $class.name .) -}}
{{- else if regexMatch "(^|/)\\.\\.(/|$)" . -}}
{{- fail (printf "StorageClass %s: the pattern %q leads out of the export: remove the .." $class.name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The value of a parameter of a class, from a list of class and name; names are case-insensitive. */ -}}
{{- define "nfs-provisioner.parameter" -}}
{{- $name := last . | lower -}}
{{- range $key, $value := (first .).parameters -}}
{{- if eq (lower $key) $name -}}
{{- trim $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.checkExportOf" -}}
{{- $values := .root.Values -}}
{{- $class := .class -}}
{{- $server := include "nfs-provisioner.parameter" (list $class "server") -}}
{{- $share := include "nfs-provisioner.parameter" (list $class "share") -}}
{{- if ne (empty $server) (empty $share) -}}
{{- fail (printf "StorageClass %s: the parameters server and share belong together: set both, or neither for the default export" $class.name) -}}
{{- end -}}
{{- $place := include "nfs-provisioner.placeOf" . -}}
{{- if not $place -}}
{{- fail (printf "StorageClass %s names no export: set nfs.server and nfs.path as the default export, or set the parameters server and share of the class%s" $class.name (eq $class.name $values.storageClass.name | ternary "; or set storageClass.create=false" "")) -}}
{{- end -}}
{{- $mounted := list -}}
{{- range include "nfs-provisioner.mounts" .root | fromJsonArray -}}
{{- $mounted = append $mounted (include "nfs-provisioner.place" (list .server .path)) -}}
{{- end -}}
{{- $known := $mounted -}}
{{- range $values.exports -}}
{{- $known = append $known (include "nfs-provisioner.place" (list .server .path)) -}}
{{- end -}}
{{- if and (eq $values.access "mounted") (not (has $place $known)) -}}
{{- fail (printf "StorageClass %s is on %s, which access=mounted does not mount: add it to exports, with access: direct if the provisioner should access it directly" $class.name $place) -}}
{{- end -}}
{{- if and (include "nfs-provisioner.isKerberos" .) (not (has $place $mounted)) -}}
{{- fail (printf "StorageClass %s has sec=krb5 in its mountOptions, which needs a mounted export: set access=mounted, for all or for %s in exports" $class.name $place) -}}
{{- end -}}
{{- end -}}

{{- /* The export of a class in canonical spelling; empty if it has none. */ -}}
{{- define "nfs-provisioner.placeOf" -}}
{{- $values := .root.Values -}}
{{- $server := include "nfs-provisioner.parameter" (list .class "server") -}}
{{- if $server -}}
{{- include "nfs-provisioner.place" (list $server (include "nfs-provisioner.parameter" (list .class "share"))) -}}
{{- else if $values.nfs.server -}}
{{- include "nfs-provisioner.place" (list $values.nfs.server $values.nfs.path) -}}
{{- else if eq (len $values.exports) 1 -}}
{{- $export := first $values.exports -}}
{{- include "nfs-provisioner.place" (list $export.server $export.path) -}}
{{- end -}}
{{- end -}}

{{- /* Whether a class allows no security flavour but Kerberos, which the provisioner itself does not speak. */ -}}
{{- define "nfs-provisioner.isKerberos" -}}
{{- $flavours := list -}}
{{- range include "nfs-provisioner.classOptions" . | fromJsonArray | join "," | splitList "," -}}
{{- if hasPrefix "sec=" (trim .) -}}
{{- $flavours = trim . | trimPrefix "sec=" | splitList ":" -}}
{{- end -}}
{{- end -}}
{{- $others := list -}}
{{- range $flavours -}}
{{- if not (hasPrefix "krb5" .) -}}
{{- $others = append $others . -}}
{{- end -}}
{{- end -}}
{{- if and $flavours (not $others) -}}
true
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.checkQuotaAgent" -}}
{{- if .Values.quotaAgent.enabled -}}
{{- if not .Values.quotaAgent.roots -}}
{{- fail "quotaAgent.roots is empty: name the directories that the server exports, as paths on its node" -}}
{{- end -}}
{{- if not .Values.quotaAgent.nodeSelector -}}
{{- fail "quotaAgent.nodeSelector is empty: select the node that is the NFS server, such as kubernetes.io/hostname: nas" -}}
{{- end -}}
{{- end -}}
{{- end -}}

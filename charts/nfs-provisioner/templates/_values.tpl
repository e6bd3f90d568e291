{{- /* Convert values as users write them to the form that the templates read. */ -}}

{{- /* Whether the chart renders anything. Every template calls this first, so that the values are converted. */ -}}
{{- define "nfs-provisioner.enabled" -}}
{{- include "nfs-provisioner.read" . -}}
{{- if .Values.enabled -}}
{{- include "nfs-provisioner.check" . -}}
true
{{- end -}}
{{- end -}}

{{- /* Convert .Values in place; a second call changes nothing. */ -}}
{{- define "nfs-provisioner.read" -}}
{{- $values := .Values -}}
{{- if kindIs "invalid" .Values.enabled -}}
{{- $_ := set .Values "enabled" true -}}
{{- end -}}
{{- range list "exports" "storageClasses" "imagePullSecrets" "extraArgs" "extraEnv" "envFrom" "extraVolumes" "extraVolumeMounts" "extraObjects" -}}
{{- if not (kindIs "slice" (get $values .)) -}}
{{- $_ := set $values . list -}}
{{- end -}}
{{- end -}}
{{- range list "podSecurityContext" "securityContext" -}}
{{- if not (get $values .) -}}
{{- $_ := set $values . dict -}}
{{- end -}}
{{- end -}}
{{- $classes := prepend .Values.storageClasses .Values.storageClass -}}

{{- include "nfs-provisioner.booleans" (dict "in" .Values "keys" (list "enabled" "buildMode" "lowSourcePorts" "volumeMetrics")) -}}
{{- include "nfs-provisioner.booleans" (dict "in" .Values.serviceMonitor "keys" (list "honorLabels")) -}}
{{- range list "leaderElection" "admissionPolicy" "podSecurityPolicy" "podDisruptionBudget" "networkPolicy" "serviceMonitor" "prometheusRule" "grafanaDashboard" "quotaAgent" "autoGrow" "snapshots" -}}
{{- include "nfs-provisioner.booleans" (dict "in" (get $values .) "keys" (list "enabled")) -}}
{{- end -}}
{{- include "nfs-provisioner.booleans" (dict "in" .Values.quotaAgent "keys" (list "allVolumes" "liftArchives" "rootIsHeld")) -}}
{{- range list .Values.storageClass .Values.rbac .Values.serviceAccount .Values.snapshots.class -}}
{{- include "nfs-provisioner.booleans" (dict "in" . "keys" (list "create" "default")) -}}
{{- end -}}
{{- range $classes -}}
{{- include "nfs-provisioner.booleans" (dict "in" . "keys" (list "defaultClass" "allowVolumeExpansion")) -}}
{{- end -}}
{{- range list .Values.podSecurityContext .Values.securityContext -}}
{{- include "nfs-provisioner.booleans" (dict "in" . "keys" (list "runAsNonRoot" "readOnlyRootFilesystem" "allowPrivilegeEscalation" "privileged")) -}}
{{- include "nfs-provisioner.integers" (dict "in" . "keys" (list "runAsUser" "runAsGroup" "fsGroup")) -}}
{{- end -}}

{{- include "nfs-provisioner.integers" (dict "in" .Values "keys" (list "replicaCount" "workers" "revisionHistoryLimit" "terminationGracePeriodSeconds")) -}}
{{- include "nfs-provisioner.integers" (dict "in" .Values.copies "keys" (list "parallel" "workers")) -}}
{{- include "nfs-provisioner.integers" (dict "in" .Values.nfs "keys" (list "uid" "gid")) -}}
{{- range list .Values.listen .Values.quotaAgent -}}
{{- include "nfs-provisioner.integers" (dict "in" . "keys" (list "port")) -}}
{{- end -}}
{{- include "nfs-provisioner.integers" (dict "in" .Values.podDisruptionBudget "keys" (list "maxUnavailable" "minAvailable")) -}}
{{- range list .Values.livenessProbe .Values.readinessProbe .Values.startupProbe -}}
{{- include "nfs-provisioner.integers" (dict "in" . "keys" (keys .)) -}}
{{- end -}}
{{- range $key := list "apiServerPorts" "nfsPorts" -}}
{{- $ports := list -}}
{{- range get $values.networkPolicy $key -}}
{{- $ports = append $ports (int .) -}}
{{- end -}}
{{- $_ := set $values.networkPolicy $key $ports -}}
{{- end -}}

{{- range append .Values.exports .Values.nfs | concat .Values.storageClasses -}}
{{- include "nfs-provisioner.mountOptions" . -}}
{{- end -}}

{{- range list "podAnnotations" "podLabels" "deploymentAnnotations" "commonAnnotations" "commonLabels" "nodeSelector" "labels" -}}
{{- include "nfs-provisioner.strings" (dict "in" $values "key" .) -}}
{{- end -}}
{{- $_ := set .Values "labels" (merge .Values.labels .Values.commonLabels) -}}
{{- $monitoring := list .Values.serviceMonitor .Values.prometheusRule .Values.grafanaDashboard -}}
{{- range concat $classes $monitoring (list .Values.serviceAccount .Values.service) -}}
{{- include "nfs-provisioner.strings" (dict "in" . "key" "annotations") -}}
{{- end -}}
{{- range append $monitoring .Values.serviceAccount -}}
{{- include "nfs-provisioner.strings" (dict "in" . "key" "labels") -}}
{{- end -}}
{{- end -}}

{{- /* Read "false" as false: --set-string, k3s's HelmChart and quotes in a values file turn booleans into strings. */ -}}
{{- define "nfs-provisioner.booleans" -}}
{{- $in := .in -}}
{{- range $key := .keys -}}
{{- $value := get $in $key -}}
{{- if and (kindIs "string" $value) (hasKey $in $key) -}}
{{- $_ := set $in $key (has (lower $value) (list "true" "t" "1")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.integers" -}}
{{- $in := .in -}}
{{- range $key := .keys -}}
{{- $value := get $in $key -}}
{{- if and (kindIs "string" $value) (regexMatch "^[0-9]+$" $value) -}}
{{- $_ := set $in $key (int64 $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Annotations and labels are strings: convert 12, 1.5 and true. */ -}}
{{- define "nfs-provisioner.strings" -}}
{{- $texts := dict -}}
{{- range $key, $value := (get .in .key | default dict) -}}
{{- if kindIs "float64" $value -}}
{{- $_ := set $texts $key (ternary (toString (int64 $value)) (toString $value) (eq $value (floor $value))) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $texts $key (toString $value) -}}
{{- end -}}
{{- end -}}
{{- $_ := set .in .key $texts -}}
{{- end -}}

{{- /* Split one string with commas into a list, as in fstab(5); an empty map is an empty list. */ -}}
{{- define "nfs-provisioner.mountOptions" -}}
{{- if kindIs "string" .mountOptions -}}
{{- $options := list -}}
{{- range splitList "," .mountOptions -}}
{{- with trim . -}}
{{- $options = append $options . -}}
{{- end -}}
{{- end -}}
{{- $_ := set . "mountOptions" $options -}}
{{- else if kindIs "map" .mountOptions -}}
{{- $_ := unset . "mountOptions" -}}
{{- end -}}
{{- end -}}

{{- /* Merge one map over another, deeply; null removes a key. */ -}}
{{- define "nfs-provisioner.overlay" -}}
{{- $on := .on -}}
{{- range $key, $value := .by -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $on $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $on $key)) -}}
{{- include "nfs-provisioner.overlay" (dict "on" (get $on $key) "by" $value) -}}
{{- else -}}
{{- $_ := set $on $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

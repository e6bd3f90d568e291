{{- /* What the daemon's pod and the pod of `helm test`, which runs `check` as the daemon would, have in common. */ -}}

{{- define "nfs-provisioner.podSpec" -}}
serviceAccountName: {{ include "nfs-provisioner.serviceAccountName" . }}
automountServiceAccountToken: true
# Otherwise a Service called nfs-server would set NFS_SERVER_… in the pod.
enableServiceLinks: false
securityContext:
  {{- include "nfs-provisioner.podSecurityContext" . | nindent 2 }}
{{- with include "nfs-provisioner.imagePullSecrets" . }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- range $key := list "dnsConfig" "hostAliases" "nodeSelector" "tolerations" }}
{{- with get $.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with include "nfs-provisioner.volumes" . | trim }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "nfs-provisioner.containerSpec" -}}
image: {{ include "nfs-provisioner.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  {{- include "nfs-provisioner.env" . | nindent 2 }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "nfs-provisioner.securityContext" . | nindent 2 }}
{{- with include "nfs-provisioner.volumeMounts" . | trim }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "nfs-provisioner.env" -}}
- name: PROVISIONER_NAME
  value: {{ include "nfs-provisioner.provisionerName" . | quote }}
{{- with .Values.nfs.server }}
- name: NFS_SERVER
  value: {{ . | quote }}
- name: NFS_PATH
  value: {{ $.Values.nfs.path | quote }}
{{- end }}
{{- with include "nfs-provisioner.exports" . }}
- name: NFS_EXPORTS
  value: {{ . | quote }}
{{- end }}
{{- if include "nfs-provisioner.mounts" . | fromJsonArray }}
- name: REQUIRE_MOUNT
  value: "true"
{{- end }}
- name: NFS_UID
  value: {{ .Values.nfs.uid | int64 | quote }}
- name: NFS_GID
  value: {{ .Values.nfs.gid | int64 | quote }}
- name: NFS_TIMEOUT
  value: {{ .Values.nfs.timeout | quote }}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: ENABLE_LEADER_ELECTION
  value: {{ .Values.leaderElection.enabled | quote }}
- name: LEASE_DURATION
  value: {{ .Values.leaderElection.leaseDuration | quote }}
- name: RENEW_DEADLINE
  value: {{ .Values.leaderElection.renewDeadline | quote }}
- name: RETRY_PERIOD
  value: {{ .Values.leaderElection.retryPeriod | quote }}
- name: LISTEN
  value: {{ printf "%s:%d" (ternary (printf "[%s]" .Values.listen.host) .Values.listen.host (contains ":" .Values.listen.host)) (int .Values.listen.port) | quote }}
- name: WORKERS
  value: {{ .Values.workers | int | quote }}
- name: PARALLEL_COPIES
  value: {{ .Values.copies.parallel | int | quote }}
- name: COPY_WORKERS
  value: {{ .Values.copies.workers | int | quote }}
{{- if .Values.volumeMetrics }}
- name: VOLUME_METRICS
  value: "true"
{{- end }}
{{- if .Values.snapshots.enabled }}
- name: SNAPSHOTS
  value: "true"
{{- end }}
- name: LOG_FORMAT
  value: {{ .Values.log.format | quote }}
- name: LOG_LEVEL
  value: {{ .Values.log.level | quote }}
{{- end -}}

{{- define "nfs-provisioner.podSecurityContext" -}}
{{- $mounted := include "nfs-provisioner.mounts" . | fromJsonArray -}}
{{- /* On a mounted export only root can remove the files of tenants, as in the nfs-subdir chart. */ -}}
{{- $uid := ternary 0 65534 (not (empty $mounted)) -}}
{{- $context := dict "runAsNonRoot" (empty $mounted) "runAsUser" $uid "runAsGroup" $uid "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- if .Values.lowSourcePorts -}}
{{- $_ := set $context "sysctls" (list (dict "name" "net.ipv4.ip_unprivileged_port_start" "value" "512")) -}}
{{- end -}}
{{- /* Root on request, as in the nfs-subdir image. null leaves the choice to the cluster, as OpenShift requires. */ -}}
{{- range list .Values.podSecurityContext .Values.securityContext -}}
{{- if and (hasKey . "runAsUser") (not (kindIs "invalid" .runAsUser)) (eq (toString .runAsUser) "0") -}}
{{- $_ := set $context "runAsNonRoot" false -}}
{{- end -}}
{{- end -}}
{{- include "nfs-provisioner.overlay" (dict "on" $context "by" .Values.podSecurityContext) -}}
{{- toYaml $context -}}
{{- end -}}

{{- define "nfs-provisioner.securityContext" -}}
{{- $capabilities := dict "drop" (list "ALL") -}}
{{- if include "nfs-provisioner.mounts" . | fromJsonArray -}}
{{- $_ := set $capabilities "add" (list "CHOWN" "DAC_OVERRIDE" "FOWNER") -}}
{{- end -}}
{{- $context := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" $capabilities -}}
{{- include "nfs-provisioner.overlay" (dict "on" $context "by" .Values.securityContext) -}}
{{- toYaml $context -}}
{{- end -}}

{{- define "nfs-provisioner.volumeMounts" -}}
{{- range include "nfs-provisioner.mounts" . | fromJsonArray }}
- name: {{ .volume }}
  mountPath: {{ .directory }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "nfs-provisioner.volumes" -}}
{{- $full := include "nfs-provisioner.fullname" . -}}
{{- range include "nfs-provisioner.mounts" . | fromJsonArray }}
- name: {{ .volume }}
{{- if $.Values.buildMode }}
  emptyDir: {}
{{- else if .mountOptions }}
  persistentVolumeClaim:
    claimName: pvc-{{ $full }}{{ .suffix }}
{{- else }}
  nfs:
    server: {{ .server | quote }}
    path: {{ .path | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

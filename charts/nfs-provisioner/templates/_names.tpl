{{- /* Names and labels. A release of the nfs-subdir chart keeps its names when it is upgraded to this chart. */ -}}

{{- define "nfs-provisioner.name" -}}
{{- $peer := "nfs-subdir-external-provisioner" -}}
{{- .Values.nameOverride | default (ternary $peer .Chart.Name (contains $peer .Release.Name)) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "nfs-provisioner.fullname" -}}
{{- $name := include "nfs-provisioner.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* The namespace of every namespaced object, unless a value names another one for it. */ -}}
{{- define "nfs-provisioner.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{- define "nfs-provisioner.provisionerName" -}}
{{- .Values.storageClass.provisionerName | default (printf "cluster.local/%s" (include "nfs-provisioner.fullname" .)) -}}
{{- end -}}

{{- /* The same rule as Settings.lease_name of the daemon. */ -}}
{{- define "nfs-provisioner.leaseName" -}}
{{- $provisioner := include "nfs-provisioner.provisionerName" . -}}
{{- $name := $provisioner | replace "/" "-" | lower -}}
{{- $label := "[a-z0-9]([-a-z0-9]*[a-z0-9])?" -}}
{{- if not (regexMatch (printf "^%s(\\.%s)*$" $label $label) $name) -}}
{{- $name = regexReplaceAll "[^a-z0-9]+" $name "-" -}}
{{- end -}}
{{- $plain := regexMatch "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$" $provisioner -}}
{{- if and $plain (le (len $provisioner) 253) -}}
{{- $name -}}
{{- else -}}
{{- regexReplaceAll "[-.]+$" (trunc 244 $name) "" }}-{{ sha256sum $provisioner | trunc 8 -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "nfs-provisioner.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- /* Those of the nfs-subdir chart, because the selector of a Deployment is immutable. */ -}}
{{- define "nfs-provisioner.selectorLabels" -}}
app: {{ include "nfs-provisioner.name" . | quote }}
release: {{ .Release.Name | quote }}
{{- end -}}

{{- define "nfs-provisioner.commonLabels" -}}
{{ include "nfs-provisioner.selectorLabels" . }}
app.kubernetes.io/name: {{ include "nfs-provisioner.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "nfs-provisioner.podLabels" -}}
{{- mergeOverwrite (include "nfs-provisioner.commonLabels" . | fromYaml) .Values.podLabels | toYaml -}}
{{- end -}}

{{- define "nfs-provisioner.labels" -}}
{{ include "nfs-provisioner.commonLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- /* The metadata of an object, from its name, its own labels and annotations, its namespace if it is not the daemon's, and
whether it is an object of the cluster. */ -}}
{{- define "nfs-provisioner.metadata" -}}
name: {{ .name | quote }}
{{- if not .cluster }}
namespace: {{ .namespace | default (include "nfs-provisioner.namespace" .root) | quote }}
{{- end }}
labels:
  {{- mergeOverwrite (include "nfs-provisioner.labels" .root | fromYaml) (.labels | default dict) | toYaml | nindent 2 }}
{{- with mergeOverwrite (deepCopy .root.Values.commonAnnotations) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* No Service, PodDisruptionBudget or NetworkPolicy of the provisioner selects the agent. */ -}}
{{- define "nfs-provisioner.quotaAgentSelector" -}}
app: {{ include "nfs-provisioner.name" . | trunc 51 | trimSuffix "-" }}-quota-agent
release: {{ .Release.Name | quote }}
{{- end -}}

{{- define "nfs-provisioner.quotaAgentLabels" -}}
{{ include "nfs-provisioner.quotaAgentSelector" . }}
app.kubernetes.io/name: {{ include "nfs-provisioner.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: quota-agent
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Values copied from the nfs-subdir chart name its image: render the image of nfs-provisioner. A mirrored copy is rejected. */ -}}
{{- define "nfs-provisioner.isPeerImage" -}}
{{- if regexMatch "^(registry\\.k8s\\.io|k8s\\.gcr\\.io|gcr\\.io/k8s-staging-sig-storage)/(sig-storage/)?nfs-subdir-external-provisioner$" .Values.image.repository -}}
true
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.image" -}}
{{- $repository := .Values.image.repository -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if include "nfs-provisioner.isPeerImage" . -}}
{{- $repository = "ghcr.io/nfs-provisioner/nfs-provisioner" -}}
{{- $tag = .Chart.AppVersion -}}
{{- else if regexMatch "(^|/)(nfs-subdir-external-provisioner|nfs-client-provisioner)$" $repository -}}
{{- fail (printf "image.repository %s is the image of nfs-subdir-external-provisioner: unset image.repository and image.tag, or name a mirror of nfs-provisioner's image" $repository) -}}
{{- end -}}
{{- with (.Values.global | default dict).imageRegistry -}}
{{- $parts := splitList "/" $repository -}}
{{- if and (gt (len $parts) 1) (regexMatch "([.:]|^localhost$)" (first $parts)) -}}
{{- $parts = rest $parts -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (join "/" $parts) -}}
{{- end -}}
{{- with .Values.image.digest -}}
{{ $repository }}@{{ . }}
{{- else -}}
{{ $repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- /* The secrets of the values and of an umbrella chart's global, without duplicates, as names or objects. */ -}}
{{- define "nfs-provisioner.imagePullSecrets" -}}
{{- $global := (.Values.global | default dict).imagePullSecrets | default list -}}
{{- $names := list -}}
{{- range concat .Values.imagePullSecrets (kindIs "slice" $global | ternary $global (list $global)) -}}
{{- $names = append $names (kindIs "map" . | ternary . (dict "name" .)) -}}
{{- end -}}
{{- with $names | uniq -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{- define "nfs-provisioner.replicas" -}}
{{- kindIs "invalid" .Values.replicaCount | ternary (ternary 2 1 .Values.leaderElection.enabled) .Values.replicaCount | int -}}
{{- end -}}

{{- /* Unset: enabled where Kubernetes serves the API (1.30) and the ServiceAccount is the provisioner's alone. */ -}}
{{- define "nfs-provisioner.hasAdmissionPolicy" -}}
{{- $wanted := .Values.admissionPolicy.enabled -}}
{{- if kindIs "invalid" $wanted -}}
{{- $wanted = and .Values.serviceAccount.create (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if $wanted -}}
true
{{- end -}}
{{- end -}}

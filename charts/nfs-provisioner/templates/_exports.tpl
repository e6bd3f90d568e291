{{- /* The exports, and which of them the kubelet mounts. */ -}}

{{- /* The mounted exports as a JSON list: volume, server, path, mountOptions, directory, suffix of the claim. */ -}}
{{- define "nfs-provisioner.mounts" -}}
{{- $mounts := list -}}
{{- if and .Values.nfs.server (eq .Values.access "mounted") -}}
{{- $mounts = append $mounts (dict "volume" .Values.nfs.volumeName "server" .Values.nfs.server "path" .Values.nfs.path "mountOptions" .Values.nfs.mountOptions "directory" "/persistentvolumes" "suffix" "") -}}
{{- end -}}
{{- range $number, $export := .Values.exports -}}
{{- if eq ($export.access | default $.Values.access) "mounted" -}}
{{- $mounts = append $mounts (dict "volume" (printf "export-%d" $number) "server" $export.server "path" $export.path "mountOptions" $export.mountOptions "directory" (printf "/exports/%d" $number) "suffix" (printf "-%d" $number)) -}}
{{- end -}}
{{- end -}}
{{- toJson $mounts -}}
{{- end -}}

{{- /* The value of NFS_EXPORTS: SERVER:PATH[=DIRECTORY], separated by spaces. */ -}}
{{- define "nfs-provisioner.exports" -}}
{{- $words := list -}}
{{- range $number, $export := .Values.exports -}}
{{- $server := ternary (printf "[%s]" $export.server) $export.server (contains ":" $export.server) -}}
{{- $word := printf "%s:%s" $server $export.path -}}
{{- if eq ($export.access | default $.Values.access) "mounted" -}}
{{- $word = printf "%s=/exports/%d" $word $number -}}
{{- end -}}
{{- $words = append $words $word -}}
{{- end -}}
{{- join " " $words -}}
{{- end -}}

{{- /* The mountOptions of a class. Those of the default export do not apply to a class on another server. */ -}}
{{- define "nfs-provisioner.classOptions" -}}
{{- $options := .class.mountOptions -}}
{{- if and (kindIs "invalid" $options) (not (include "nfs-provisioner.parameter" (list .class "server"))) -}}
{{- $options = .root.Values.nfs.mountOptions -}}
{{- end -}}
{{- toJson ($options | default list) -}}
{{- end -}}

{{/* The operator's name is fixed: its Lease, its Secret and the address that pods report to are made of it. */}}
{{- define "pinnace.name" -}}pinnace-operator{{- end }}

{{/* Objects without a namespace carry the installation's, so that two installations don't share them. */}}
{{- define "pinnace.clusterName" -}}pinnace-operator-{{ .Release.Namespace }}{{- end }}

{{- define "pinnace.tag" -}}{{ .Values.image.tag | default .Chart.AppVersion }}{{- end }}

{{- define "pinnace.selector" -}}
app.kubernetes.io/name: {{ include "pinnace.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pinnace.labels" -}}
{{ include "pinnace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pinnace
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* What the operator may do with the resources that it serves, and with nothing else. */}}
{{- define "pinnace.rules" -}}
# patch is for metadata.finalizers (deletionPolicy: Delete); the spec is never written.
- apiGroups: [pinnace.dev]
  resources: [sftjobs]
  verbs: [get, list, watch, patch]
- apiGroups: [pinnace.dev]
  resources: [sftjobs/status]
  verbs: [patch]
# Owner references that block deletion need this where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [pinnace.dev]
  resources: [sftjobs/finalizers]
  verbs: [update]
- apiGroups: [jobset.x-k8s.io]
  resources: [jobsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [get, list, watch]
{{- end }}

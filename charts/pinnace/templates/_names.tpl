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
# patch is for metadata.finalizers (deletionPolicy: Delete); users' specs are never written.
- apiGroups: [pinnace.dev]
  resources: [mergejobs, rlruns, sftjobs]
  verbs: [get, list, watch, patch]
# A MergeJob's sweep makes EvalSuites of its own.
- apiGroups: [pinnace.dev]
  resources: [evalsuites]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [pinnace.dev]
  resources: [toolsandboxes]
  verbs: [get, list, watch]
- apiGroups: [pinnace.dev]
  resources: [evalsuites/status, mergejobs/status, rlruns/status, sftjobs/status, toolsandboxes/status]
  verbs: [patch]
# Owner references that block deletion need this where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [pinnace.dev]
  resources: [evalsuites/finalizers, mergejobs/finalizers, rlruns/finalizers, sftjobs/finalizers, toolsandboxes/finalizers]
  verbs: [update]
- apiGroups: [jobset.x-k8s.io]
  resources: [jobsets]
  verbs: [get, list, watch, create, patch, delete]
# delete is for sandboxes whose lease is over.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
# What a ToolSandbox consists of.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# The gateway's identity and its rights. The API server lets nobody grant what he does not have himself, so the operator
# holds each of them: to read ConfigMaps (the gateway: one, by name) and EndpointSlices. It has neither escalate nor bind.
- apiGroups: [""]
  resources: [serviceaccounts, configmaps]
  verbs: [get, list, watch, create, patch]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# Keys between gateway and sandboxes are made here and never read: no get, no list, no watch.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [get, list, watch]
{{- end }}

{{- define "mlwarden.labels" -}}
app.kubernetes.io/name: mlwarden
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "mlwarden.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{ .Values.image.repository }}:{{ $tag }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* Both values that everything depends on, refused early when they contradict each other. */}}
{{- define "mlwarden.validate" -}}
{{- if not (hasKey .Values.profiles .Values.defaultProfile) -}}
{{- fail (printf "defaultProfile %q is not one of the profiles (%s)" .Values.defaultProfile (keys .Values.profiles | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end }}

{{- define "mlwarden.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "mlwarden.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "mlwarden.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "mlwarden.env" -}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
{{- end }}

{{- define "mlwarden.probes" -}}
readinessProbe:
  httpGet: {path: /readyz, port: probes}
  periodSeconds: 2
livenessProbe:
  httpGet: {path: /healthz, port: probes}
  periodSeconds: 10
  failureThreshold: 6
{{- end }}

{{/* The right to read whatever of the table of kinds a pod may belong to (owners.yaml). */}}
{{- define "mlwarden.owners" -}}
{{- range $group, $resources := .Files.Get "owners.yaml" | fromYaml }}
- apiGroups: [{{ $group | quote }}]
  resources: {{ toJson $resources }}
  verbs: [get]
{{- end }}
{{- end }}

{{- define "mlwarden.registryOptions" -}}
- --registries=/etc/mlwarden/registries/registries.yaml
{{- range .Values.scanner.plainHTTP }}
- --plain-http={{ . }}
{{- end }}
{{- if .Values.scanner.pullSecret }}
- --docker-config=/etc/mlwarden/pull/.dockerconfigjson
{{- end }}
{{- end }}

{{/* The right to see that mlwarden's custom resource definitions are there to stay. */}}
{{- define "mlwarden.definitions" -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [imageevidences.mlwarden.io, revokedartifacts.mlwarden.io, wardenpolicies.mlwarden.io]
  verbs: [get]
{{- end }}

{{/* The right to read what the platform's injectors are configured by. */}}
{{- define "mlwarden.platform" -}}
- apiGroups: [serving.kserve.io]
  resources: [clusterstoragecontainers]
  verbs: [list, watch]
{{- range $injector, $object := dict "kserve" "inferenceservice-config" "knative" "config-deployment" "istio" "istio-sidecar-injector" }}
{{- if index $.Values.platform $injector }}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ $object }}]
  verbs: [list, watch]
{{- end }}
{{- end }}
{{- if .Values.platform.argo }}
- apiGroups: [apps]
  resources: [deployments]
  resourceNames: [workflow-controller]
  verbs: [list, watch]
{{- end }}
{{- end }}

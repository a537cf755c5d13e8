package deploy_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// manifest is what kustomize makes of a folder, by Kubernetes' types.
type manifest struct {
	namespace  corev1.Namespace
	account    corev1.ServiceAccount
	config     corev1.ConfigMap
	deployment appsv1.Deployment
	service    corev1.Service
	network    networkingv1.NetworkPolicy
	disruption policyv1.PodDisruptionBudget
	scaling    autoscalingv2.HorizontalPodAutoscaler
	claim      corev1.PersistentVolumeClaim

	kinds []string // of all that is there
}

// build runs kustomize on a folder, and reads what it makes as the API server does that is told to be strict: an unknown or
// repeated field is an error.
func build(t *testing.T, folder string) manifest {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), deploy+"/kubernetes/"+folder)
	if err != nil {
		t.Fatal(err)
	}
	var m manifest
	into := map[string]any{
		"v1 Namespace": &m.namespace, "v1 ServiceAccount": &m.account, "v1 ConfigMap": &m.config, "v1 Service": &m.service,
		"v1 PersistentVolumeClaim": &m.claim, "apps/v1 Deployment": &m.deployment, "networking.k8s.io/v1 NetworkPolicy": &m.network,
		"policy/v1 PodDisruptionBudget": &m.disruption, "autoscaling/v2 HorizontalPodAutoscaler": &m.scaling,
	}
	for _, r := range made.Resources() {
		kind := r.GetApiVersion() + " " + r.GetKind()
		target, known := into[kind]
		if !known {
			t.Fatalf("%s: a %s; none is expected, or a second one", folder, kind)
		}
		delete(into, kind)
		m.kinds = append(m.kinds, r.GetKind())
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(text, target); err != nil {
			t.Errorf("%s: %s: %v", folder, kind, err)
		}
		if ns := r.GetNamespace(); ns != m.namespace.Name && r.GetKind() != "Namespace" {
			t.Errorf("%s: %s is in namespace %q, want %q", folder, kind, ns, m.namespace.Name)
		}
	}
	slices.Sort(m.kinds)
	return m
}

// TestKubernetes: both variants can be applied, and their parts find each other.
func TestKubernetes(t *testing.T) {
	common := []string{"ConfigMap", "Deployment", "Namespace", "NetworkPolicy", "Service", "ServiceAccount"}
	for folder, kinds := range map[string][]string{
		"base":   append([]string{"HorizontalPodAutoscaler", "PodDisruptionBudget"}, common...),
		"single": append([]string{"PersistentVolumeClaim"}, common...),
	} {
		t.Run(folder, func(t *testing.T) {
			m := build(t, folder)
			slices.Sort(kinds)
			if !slices.Equal(m.kinds, kinds) {
				t.Errorf("got %q, want %q", m.kinds, kinds)
			}
			m.checkPod(t)
			m.checkSelectors(t)
			m.checkNetwork(t)
			if replicas := *m.deployment.Spec.Replicas; folder == "single" {
				if replicas != 1 || m.deployment.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
					t.Errorf("got %d replicas, replaced by %s; two at a time cannot share a folder", replicas, m.deployment.Spec.Strategy.Type)
				}
			} else if least := *m.scaling.Spec.MinReplicas; replicas != 2 || least != 2 || m.scaling.Spec.ScaleTargetRef.Name != m.deployment.Name {
				t.Errorf("got %d replicas, and at least %d of %q, want 2 of %q", replicas, least, m.scaling.Spec.ScaleTargetRef.Name, m.deployment.Name)
			}
		})
	}
}

// checkPod holds the pod to the standard that its namespace enforces, and what it mounts to what there is.
func (m manifest) checkPod(t *testing.T) {
	t.Helper()
	if level := m.namespace.Labels[api.EnforceLevelLabel]; level != string(api.LevelRestricted) {
		t.Errorf("the namespace enforces %q, want %q", level, api.LevelRestricted)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	pod := m.deployment.Spec.Template
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(
		api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec))
	if !result.Allowed {
		t.Errorf("the pod is refused: %s", result.ForbiddenDetail())
	}
	container := pod.Spec.Containers[0]
	if c := container.SecurityContext; c.ReadOnlyRootFilesystem == nil || !*c.ReadOnlyRootFilesystem {
		t.Error("its file system can be written")
	}
	if pod.Spec.ServiceAccountName != m.account.Name || *pod.Spec.AutomountServiceAccountToken || *m.account.AutomountServiceAccountToken {
		t.Error("it is given a token of Kubernetes'")
	}
	mounted := map[string]bool{}
	for _, mount := range container.VolumeMounts {
		mounted[mount.Name] = true
	}
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
		switch {
		case v.ConfigMap != nil && v.ConfigMap.Name != m.config.Name:
			t.Errorf("volume %s is ConfigMap %s, want %s", v.Name, v.ConfigMap.Name, m.config.Name)
		case v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName != m.claim.Name:
			t.Errorf("volume %s is claim %s, want %s", v.Name, v.PersistentVolumeClaim.ClaimName, m.claim.Name)
		}
	}
	if !maps.Equal(mounted, volumes) {
		t.Errorf("mounts %v, want all of the volumes %v", mounted, volumes)
	}
}

// checkSelectors: whatever selects pods of ours selects these.
func (m manifest) checkSelectors(t *testing.T) {
	t.Helper()
	want := map[string]string{"app.kubernetes.io/name": "freeagent-proxy"}
	selectors := map[string]map[string]string{
		"Deployment":    m.deployment.Spec.Selector.MatchLabels,
		"pods":          m.deployment.Spec.Template.Labels,
		"Service":       m.service.Spec.Selector,
		"NetworkPolicy": m.network.Spec.PodSelector.MatchLabels,
	}
	if m.disruption.Name != "" {
		selectors["PodDisruptionBudget"] = m.disruption.Spec.Selector.MatchLabels
	}
	for i, c := range m.deployment.Spec.Template.Spec.TopologySpreadConstraints {
		selectors[fmt.Sprintf("topology spread %d", i)] = c.LabelSelector.MatchLabels
	}
	for name, labels := range selectors {
		if !maps.Equal(labels, want) {
			t.Errorf("%s: got labels %v, want %v", name, labels, want)
		}
	}
}

// checkNetwork: programs and Prometheus each reach their port, and nobody another one. Out of it lead names, FreeAgent and,
// unless there is a volume, Redis.
func (m manifest) checkNetwork(t *testing.T) {
	t.Helper()
	ports := map[string]int32{}
	for _, p := range m.deployment.Spec.Template.Spec.Containers[0].Ports {
		ports[p.Name] = p.ContainerPort
	}
	if target := m.service.Spec.Ports[0].TargetPort.StrVal; ports[target] != 8080 {
		t.Errorf("the Service leads to port %q (%d), want 8080", target, ports[target])
	}
	var in []string
	for _, rule := range m.network.Spec.Ingress {
		in = append(in, fmt.Sprintf("%v %v to %s", labels(rule.From[0].NamespaceSelector), labels(rule.From[0].PodSelector), rule.Ports[0].Port.String()))
	}
	want := []string{
		"map[] map[freeagent-proxy/client:true] to http",
		"map[kubernetes.io/metadata.name:monitoring] map[app.kubernetes.io/name:prometheus] to admin",
	}
	if !slices.Equal(in, want) {
		t.Errorf("may call: %q, want %q", in, want)
	}
	var out []int
	for _, rule := range m.network.Spec.Egress {
		out = append(out, rule.Ports[0].Port.IntValue())
		for _, peer := range rule.To {
			if reflect.DeepEqual(labels(peer.PodSelector), labels(&m.network.Spec.PodSelector)) {
				t.Errorf("port %s: the peer is the proxy itself", rule.Ports[0].Port)
			}
		}
	}
	allowed := []int{53, 443, 6379}
	if m.claim.Name != "" {
		allowed = allowed[:2]
	}
	if !slices.Equal(out, allowed) {
		t.Errorf("may be called: ports %v, want %v", out, allowed)
	}
	if len(m.network.Spec.PolicyTypes) != 2 {
		t.Errorf("the policy is for %v, want both directions", m.network.Spec.PolicyTypes)
	}
}

func labels(s *metav1.LabelSelector) map[string]string {
	if s == nil {
		return nil
	}
	return s.MatchLabels
}

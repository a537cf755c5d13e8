package deploy_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// composition is what Compose reads in deploy/compose, as `docker compose config` does.
func composition(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{deploy + "/compose/compose.yaml"}, cli.WithDiscardEnvFile)
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestCompose(t *testing.T) {
	project := composition(t)
	names := slices.Sorted(maps.Keys(project.Services))
	if want := []string{"balancer", "proxy", "redis"}; !slices.Equal(names, want) {
		t.Fatalf("got services %q, want %q", names, want)
	}
	for name, service := range project.Services {
		if !service.ReadOnly || !slices.Equal(service.CapDrop, []string{"ALL"}) || len(service.CapAdd) > 0 || service.Privileged ||
			!slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s has more rights than it needs: %+v", name, service)
		}
		for _, v := range service.Volumes {
			if v.Type == types.VolumeTypeBind {
				if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
					t.Errorf("%s mounts %s (read-only: %t): %v", name, v.Source, v.ReadOnly, err)
				}
			}
		}
		for _, s := range service.Secrets {
			if filepath.Dir(project.Secrets[s.Source].File) != filepath.Join(project.WorkingDir, "secrets") {
				t.Errorf("%s: secret %s is %q, want a file in secrets", name, s.Source, project.Secrets[s.Source].File)
			}
		}
	}
	proxy, redis := project.Services["proxy"], project.Services["redis"]
	if *proxy.Deploy.Replicas != 2 || len(proxy.Ports) > 0 {
		t.Errorf("got %d replicas with ports %v, want 2 and none: two cannot have the same", *proxy.Deploy.Replicas, proxy.Ports)
	}
	if grace := time.Duration(*proxy.StopGracePeriod); grace != 95*time.Second {
		t.Errorf("replicas are killed after %s, want 95s", grace)
	}
	if published := project.Services["balancer"].Ports; len(published) != 1 || published[0].HostIP != "127.0.0.1" {
		t.Errorf("published: %+v, want one port on loopback", published)
	}
	if len(redis.Networks) != 1 || !bool(project.Networks["redis"].Internal) || len(redis.Ports) > 0 {
		t.Errorf("Redis is in networks %v with ports %v, want the internal one only", redis.Networks, redis.Ports)
	}
	if proxy.DependsOn["redis"].Condition != types.ServiceConditionHealthy || redis.HealthCheck == nil || proxy.HealthCheck == nil {
		t.Error("replicas do not wait until Redis is healthy, or somebody's health is not checked")
	}
}

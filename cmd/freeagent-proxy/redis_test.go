package main

import (
	"reflect"
	"testing"
)

// reached is what of the options says where a Redis is.
type reached struct {
	addrs    []string
	master   string
	cluster  bool
	user     string
	password string
	database int
	tls      bool
}

func TestRedisURL(t *testing.T) {
	for text, want := range map[string]reached{
		"redis://localhost":                             {addrs: []string{"localhost:6379"}},
		"redis://localhost:1/2":                         {addrs: []string{"localhost:1"}, database: 2},
		"redis://localhost?db=3":                        {addrs: []string{"localhost:6379"}, database: 3},
		"rediss://u:p%40ss@redis:6380/0":                {addrs: []string{"redis:6380"}, user: "u", password: "p@ss", tls: true},
		"redis://:p@[::1]/1":                            {addrs: []string{"[::1]:6379"}, password: "p", database: 1},
		"unix:///run/redis.sock?db=1":                   {addrs: []string{"/run/redis.sock"}, database: 1},
		"redis-sentinel://a,b:1,c/main":                 {addrs: []string{"a:26379", "b:1", "c:26379"}, master: "main"},
		"redis-sentinel://u:p@a/main/4":                 {addrs: []string{"a:26379"}, master: "main", user: "u", password: "p", database: 4},
		"redis+sentinel://a/main":                       {addrs: []string{"a:26379"}, master: "main"},
		"redis://a:26379?master_name=main&addr=b:26379": {addrs: []string{"a:26379", "b:26379"}, master: "main"},
		"rediss-sentinel://a?master=main":               {addrs: []string{"a:26379"}, master: "main", tls: true},
		"redis-cluster://a,b:1":                         {addrs: []string{"a:6379", "b:1"}, cluster: true},
		"redis-cluster://a/":                            {addrs: []string{"a:6379"}, cluster: true},
		"redis://a,b,c":                                 {addrs: []string{"a:6379", "b:6379", "c:6379"}, cluster: true},
		"redis://a?addr=b&addr=c:1":                     {addrs: []string{"a:6379", "b:6379", "c:1"}, cluster: true},
		"rediss://a?cluster=true":                       {addrs: []string{"a:6379"}, cluster: true, tls: true},
	} {
		o, _, err := RedisConfig{URL: newSecret(text)}.options()
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got := reached{o.Addrs, o.MasterName, o.IsClusterMode, o.Username, o.Password, o.DB, o.TLSConfig != nil}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", text, got, want)
		}
	}
}
